import pytest

from penstock.core import paths
from penstock.core.ids import (
    AttemptNumber,
    ChannelId,
    CheckpointId,
    JobId,
    OperatorId,
    SubtaskId,
    is_uid,
)

JOB = JobId("word.count")
SUBTASK = SubtaskId(OperatorId("counts-by-word"), 3)
A, N = AttemptNumber(2), CheckpointId(17)


def test_names_in_the_store_are_what_the_reference_says():
    request = "0b54f0d2"
    assert paths.log_entry(JOB, 12) == "word.count/log/00000000000000000012.json"
    assert paths.checkpoint_metadata(JOB, N) == "word.count/chk-17/_metadata"
    assert (
        paths.private_file(JOB, A, N, SUBTASK, "f00d")
        == "word.count/chk-17/2-17-counts-by-word-3-f00d"
    )
    assert paths.shared_file(JOB, A, N, "f00d") == "word.count/shared/2-17-f00d"
    assert paths.savepoint_folder(JOB, request) == "savepoint-9bd68f-507d803350a5/"
    assert (
        paths.savepoint_file(JOB, request, A, N, SUBTASK, "f00d")
        == "savepoint-9bd68f-507d803350a5/2-17-counts-by-word-3-f00d"
    )
    assert paths.transaction(JOB, SUBTASK, A, 4, "cafe") == "word.count/counts-by-word/3/2-4-cafe"
    assert len(paths.flink_id(JOB)) == 32


def test_log_entries_sort_by_number():
    numbers = [0, 1, 9, 10, 99, 10**19]
    assert sorted(paths.log_entry(JOB, n) for n in numbers) == [
        paths.log_entry(JOB, n) for n in numbers
    ]


@pytest.mark.parametrize("seq", [0, 1, 12345, 10**20 - 1])
def test_a_log_entry_tells_its_number(seq: int):
    assert paths.log_seq(paths.log_entry(JOB, seq)) == seq


@pytest.mark.parametrize(
    "name",
    [
        "",
        "5.json",
        "0" * 20,
        "0" * 21 + ".json",
        "0" * 20 + ".json.tmp",
        "²" * 20 + ".json",
        "x.json",
    ],
)
def test_a_name_that_is_no_log_entry_has_no_number(name: str):
    assert paths.log_seq(paths.log_folder(JOB) + name) is None


@pytest.mark.parametrize(
    ("path", "number"),
    [
        ("job/chk-17/_metadata", 17),
        ("job/chk-17/2-17-x-3-f00d", 17),
        ("chk-5/chk-7/_metadata", 7),
        ("chk-5/shared/1-1-x", None),
        ("job/chk-17", None),
        ("job/chk-x/_metadata", None),
        ("job/chk-²/_metadata", None),
        ("job/log/chk-1/x", None),
        ("savepoint-1-2/_metadata", None),
    ],
)
def test_a_path_tells_the_checkpoint_whose_folder_it_is_in(path: str, number: int | None):
    assert paths.checkpoint_of(path) == number


def test_a_path_is_named_relative_to_its_job():
    path = paths.private_file(JOB, A, N, SUBTASK, "x")
    assert JOB + "/" + paths.relative_to_job(JOB, path) == path
    with pytest.raises(AssertionError):
        paths.relative_to_job(JobId("word"), path)


def test_savepoints_of_different_requests_or_jobs_lie_apart():
    folders = {paths.savepoint_folder(JobId(j), r) for j in ("a", "b") for r in ("1", "2")}
    assert len(folders) == 4


@pytest.mark.parametrize("uid", ["a", "0", "word-count-2", "a" * 63])
def test_a_uid_is_a_dns_label(uid: str):
    assert is_uid(uid)


@pytest.mark.parametrize("uid", ["", "-a", "a-", "A", "a_b", "a.b", "a/b", "ä", "a" * 64, "a\n"])
def test_what_is_no_dns_label_is_no_uid(uid: str):
    assert not is_uid(uid)


def test_identities_read_as_people_write_them():
    assert str(SUBTASK) == "counts-by-word/3"
    assert SubtaskId.parse("counts-by-word/3") == SUBTASK
    assert str(ChannelId(1, 2, 3)) == "1:2>3"
