"""From a snapshot to what each subtask starts from."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.checkpoint import restore
from penstock.core.descriptors import StateDescriptor, StateKind
from penstock.core.errors import Rejected
from penstock.core.graph import Edge, Exchange, JobGraph, Operator
from penstock.core.handles import FileHandle, KeyedFormat, KeyedHandle, SubtaskSnapshot
from penstock.core.ids import AttemptNumber, CheckpointId, JobId, OperatorId
from penstock.core.keygroups import HASH_NAME, owned_range
from penstock.core.log import SnapshotRef
from penstock.core.manifest import Manifest, OperatorSnapshot, SnapshotKind

COUNTS, LINES = OperatorId("counts"), OperatorId("lines")
COUNT = StateDescriptor("count", StateKind.VALUE, "msgpack/1", "int")
SPLIT = StateDescriptor("offsets", StateKind.SPLIT_LIST, "msgpack/1", "int")
UNION = StateDescriptor("names", StateKind.UNION_LIST, "msgpack/1", "str")


def graph(**counts) -> JobGraph:
    counts = {"key": "word", "key_schema": "str", "states": (COUNT,), **counts}
    return JobGraph(
        "job",
        (
            Operator(LINES, "source", uid=True, states=(SPLIT, UNION)),
            Operator(COUNTS, "process", uid=True, **counts),
        ),
        (Edge(LINES, COUNTS, Exchange.HASH),),
    )


def manifest(
    parallelism: int = 2, *, max_parallelism: int = 8, lists=(), watermarks=()
) -> Manifest:
    lists = lists or [{}] * parallelism
    watermarks = watermarks or [None] * parallelism
    keyed = [
        KeyedHandle(
            KeyedFormat.CANONICAL,
            owned_range(i, parallelism=parallelism, max_parallelism=max_parallelism),
            (FileHandle(f"chk-1/{i}", 1, 0),),
        )
        for i in range(parallelism)
    ]
    return Manifest(
        SnapshotKind.CHECKPOINT,
        JobId("job"),
        AttemptNumber(1),
        CheckpointId(1),
        0,
        parallelism,
        max_parallelism,
        HASH_NAME,
        "key/1",
        "row/1",
        {
            LINES: OperatorSnapshot(
                parallelism, (SPLIT, UNION), None, tuple(SubtaskSnapshot(lists=x) for x in lists)
            ),
            COUNTS: OperatorSnapshot(
                parallelism,
                (COUNT,),
                "str",
                tuple(
                    SubtaskSnapshot(keyed=k, watermark_ms=w)
                    for k, w in zip(keyed, watermarks, strict=True)
                ),
            ),
        },
    )


def verify(m: Manifest, g: JobGraph, **how) -> None:
    how = {"parallelism": 2, "max_parallelism": None, **how}
    restore.verify(m, g, **how)


# ── may it be restored? ────────────────────────────────────────────────────────────────────────


def test_a_snapshot_of_the_same_job_may_be_restored_at_any_parallelism():
    for parallelism in range(1, 9):
        verify(manifest(), graph(), parallelism=parallelism)


@pytest.mark.parametrize(
    ("change", "how", "says"),
    [
        ({"hash_name": "other/1"}, {}, "grouped by other/1"),
        ({}, {"max_parallelism": 16}, "maxParallelism is 16, the snapshot's is 8"),
        ({}, {"parallelism": 9}, "parallelism 9 is above"),
    ],
)
def test_what_cannot_change_is_refused(change: dict, how: dict, says: str):
    with pytest.raises(Rejected, match=says):
        verify(replace(manifest(), **change), graph(), **how)


def test_state_without_a_taker_is_refused_naming_the_operator_unless_allowed():
    without = JobGraph("job", (graph().operators[0],), ())
    with pytest.raises(Rejected, match="operator counts has state"):
        verify(manifest(), without)
    verify(manifest(), without, allow_non_restored=True)


def test_an_operator_without_state_needs_no_taker():
    m = manifest()
    empty = OperatorSnapshot(2, subtasks=(SubtaskSnapshot(), SubtaskSnapshot()))
    m.operators[OperatorId("map-3")] = empty
    verify(m, graph())


def test_rename_gives_state_to_another_operator():
    renamed = replace(graph().operators[1], id=OperatorId("totals"))
    g = JobGraph("job", (graph().operators[0], renamed), ())
    how = {COUNTS: OperatorId("totals")}
    verify(manifest(), g, rename=how)
    plan = restore.plan(manifest(), g, parallelism=2, folder="job/", rename=how)
    assert plan[OperatorId("totals")][0].keyed


@pytest.mark.parametrize(
    ("rename", "says"),
    [
        ({"nobody": "counts"}, "no operator nobody in the snapshot"),
        ({"counts": "nobody"}, "the job has no such operator"),
        ({"counts": "lines"}, "both become lines"),
    ],
)
def test_a_wrong_rename_is_refused(rename: dict, says: str):
    with pytest.raises(Rejected, match=says):
        verify(manifest(), graph(), rename=rename)


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("str", "str", True),
        ("tuple", "tuple[str, int]", True),
        ("Request", "weblog.Request{host: str}", True),
        ("tuple[str, int]", "tuple[str, str]", False),
        ("tuple", "list[str]", False),
    ],
)
def test_an_observed_type_of_keys_is_a_declared_one_by_its_name(old, new, same):
    assert restore.is_same_key(old, new) is same


def test_keys_may_not_change_their_type():
    with pytest.raises(Rejected, match=r"keys of operator counts are str .* and int"):
        verify(manifest(), graph(key_schema="int"))


def test_a_key_type_that_was_only_observed_is_no_reason_to_refuse():
    verify(manifest(), graph(key_schema=None))


def test_state_that_cannot_be_read_is_refused_with_operator_state_and_both_types():
    new = replace(COUNT, schema="str")
    with pytest.raises(Rejected) as refused:
        verify(manifest(), graph(states=(new,)))
    for word in ("count", "counts", "int (msgpack/1)", "str (msgpack/1)"):
        assert word in refused.value.what


def test_a_serializer_that_reads_the_old_type_is_asked():
    new = replace(COUNT, schema="float")
    verify(manifest(), graph(states=(new,)), is_readable=lambda old, new: True)


def test_a_state_of_another_kind_is_refused():
    with pytest.raises(Rejected, match="is a value state in the snapshot and a list state"):
        verify(manifest(), graph(states=(replace(COUNT, kind=StateKind.LIST),)))


def test_a_state_that_is_no_longer_declared_is_carried_on():
    verify(manifest(), graph(states=()))
    plan = restore.plan(manifest(), graph(states=()), parallelism=2, folder="job/")
    assert plan[COUNTS][0].states == (COUNT,)


# ── who gets what ──────────────────────────────────────────────────────────────────────────────


@given(old=st.integers(1, 40), new=st.integers(1, 40))
def test_every_key_group_is_restored_once_by_its_owner(old: int, new: int):
    m = manifest(old, max_parallelism=40)
    plan = restore.plan(m, graph(), parallelism=new, folder="job/")[COUNTS]
    for index in range(new):
        owned = owned_range(index, parallelism=new, max_parallelism=40)
        got = [group for source in plan[index].keyed for group in source.groups]
        assert got == list(owned)
        for source in plan[index].keyed:
            assert source.handle.groups.intersection(source.groups) == source.groups


def test_a_local_copy_may_be_used_where_the_range_is_unchanged():
    plan = restore.plan(manifest(2), graph(), parallelism=2, folder="job/", local="chk-1")
    assert [plan[COUNTS][i].local for i in range(2)] == ["chk-1", "chk-1"]
    plan = restore.plan(manifest(2), graph(), parallelism=3, folder="job/", local="chk-1")
    assert {part.local for part in plan[COUNTS].values()} == {None}


def test_split_lists_are_untouched_at_unchanged_parallelism():
    lists = [{"offsets": (b"a", b"b", b"c")}, {"offsets": ()}]
    plan = restore.plan(manifest(2, lists=lists), graph(), parallelism=2, folder="job/")
    assert [plan[LINES][i].lists for i in range(2)] == lists


def test_split_lists_are_concatenated_and_divided_evenly():
    lists = [{"offsets": (b"a", b"b")}, {"offsets": (b"c", b"d", b"e")}]
    plan = restore.plan(manifest(2, lists=lists), graph(), parallelism=3, folder="job/")
    shares = [plan[LINES][i].lists["offsets"] for i in range(3)]
    assert shares == [(b"a", b"b"), (b"c", b"d"), (b"e",)]


def test_larger_shares_rotate_from_list_to_list():
    lists = [{"a": (b"1",), "b": (b"2",), "c": (b"3",)}]
    shares = restore.divide(lists, 2)
    assert [{n for n, items in share.items() if items} for share in shares] == [{"a", "c"}, {"b"}]


@given(
    st.lists(st.dictionaries(st.sampled_from("abc"), st.binary(max_size=1).map(lambda b: (b,)))),
    st.integers(1, 7),
)
def test_dividing_loses_nothing_and_is_even(lists: list, parallelism: int):
    shares = restore.divide(lists, parallelism)
    for name in "abc":
        before = [item for part in lists for item in part.get(name, ())]
        after = [item for share in shares for item in share.get(name, ())]
        assert after == before
        sizes = [len(share.get(name, ())) for share in shares]
        assert max(sizes) - min(sizes) <= 1
    totals = [sum(map(len, share.values())) for share in shares]
    assert max(totals) - min(totals) <= 1


def test_a_union_list_goes_to_everyone_scaled_down_then_up():
    lists = [{"names": (b"a",)}, {"names": (b"b",)}]
    down = restore.plan(manifest(2, lists=lists), graph(), parallelism=1, folder="job/")
    assert down[LINES][0].lists == {"names": (b"a", b"b")}
    up = restore.plan(
        manifest(1, lists=[{"names": (b"a", b"b")}]), graph(), parallelism=2, folder="job/"
    )
    assert [up[LINES][i].lists["names"] for i in range(2)] == [(b"a", b"b")] * 2


def test_a_watermark_is_the_least_of_those_it_is_made_from():
    m = manifest(4, watermarks=[10, 20, 30, 40])
    plan = restore.plan(m, graph(), parallelism=2, folder="job/")
    assert [plan[COUNTS][i].watermark_ms for i in range(2)] == [10, 30]


def test_folders_are_the_jobs_for_a_checkpoint_and_its_own_for_a_savepoint():
    checkpoint = SnapshotRef(CheckpointId(1), "job/chk-1/_metadata", "")
    savepoint = SnapshotRef(CheckpointId(1), "s3://b/savepoint-1/_metadata", "")
    m = manifest()
    assert restore.folder_of(checkpoint, m) == "job/"
    moved = replace(m, kind=SnapshotKind.SAVEPOINT)
    assert restore.folder_of(savepoint, moved) == "s3://b/savepoint-1/"
