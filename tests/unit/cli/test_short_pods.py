"""`penstock check` and `penstock dispose` as short pods run them: an answer as termination message."""

import json
import shutil
import sys

import pytest

from penstock.core import paths
from penstock.core.ids import JobId
from penstock.core.log import EndKind
from penstock.runtime.job_storage import JobStorage
from penstock.runtime.snapshot_files import read_newest_entry

JOB = """
import penstock
from penstock import sinks, sources

class Counts(penstock.KeyedFunction):
    count = penstock.ValueState({type})
    def process(self, word, ctx):
        return None

def job(env):
    lines = env.source(sources.Files('x'), uid='lines')
    lines.key_by(str).process(Counts(), uid='{uid}')
"""


@pytest.fixture
def pod(penstock, monkeypatch, tmp_path):
    """Runs a command in the pod of the job wordcount; its answer and its termination message."""
    message = tmp_path / "message"
    monkeypatch.setenv("PENSTOCK_MANIFEST", str(tmp_path / "etc" / "streamjob.yaml"))
    monkeypatch.setenv("PENSTOCK_FOLDER", str(tmp_path / "job"))
    monkeypatch.setenv("PENSTOCK_OWNER", "local/test")
    monkeypatch.setenv("PENSTOCK_TERMINATION_LOG", str(message))
    (tmp_path / "etc").mkdir()
    (tmp_path / "job").mkdir()

    def call(*arguments, code=None, more="", checkpoints=tmp_path / "state" / "checkpoints"):
        (tmp_path / "job" / "words.py").write_text(code or JOB.format(type="int", uid="counts"))
        (tmp_path / "etc" / "streamjob.yaml").write_text(
            "apiVersion: penstock.dev/v1alpha1\nkind: StreamJob\nmetadata: {name: wordcount}\n"
            f"spec:\n  entrypoint: words:job\n  checkpoints: {{storage: '{checkpoints}'}}\n{more}"
        )
        message.unlink(missing_ok=True)
        sys.modules.pop("words", None)  # each pod imports anew
        answer = penstock(*arguments, "-o", "json")
        told = json.loads(message.read_text()) if message.exists() else None
        return answer, told

    return call


def test_what_fits_is_said_on_stdout_and_in_the_message(pod, made, words):
    made.checkpoint(8, words)
    made.checkpoint(9, words)
    answer, told = pod("check")
    assert answer.code == 0
    assert json.loads(answer.out) == told
    assert told["fits"] is True
    assert told["snapshot"].endswith("state/checkpoints/wordcount/chk-9")
    assert told["exitCode"] == 0


@pytest.mark.parametrize(
    ("code", "more", "sentence"),
    [
        (JOB.format(type="int", uid="sums"), "", "operator counts has state in the snapshot"),
        (JOB.format(type="str", uid="counts"), "", "state count of operator counts is int"),
        ("def job(env):\n    raise KeyError('corpus')\n", "", "job() raised KeyError: 'corpus'"),
        ("import sys\nsys.exit(3)\n", "", "importing words raised SystemExit"),
        ("import nowhere\n", "", "importing words raised ModuleNotFoundError"),
        (None, "  maxParallelism: 64\n", "maxParallelism is 64, the snapshot's is 128"),
        (None, "  state: {backend: 'nowhere:open'}\n", "no state backend nowhere:open"),
        (None, "  paralellism: 2\n", "paralellism"),
    ],
)
def test_what_does_not_fit_is_an_answer_with_a_sentence(pod, made, words, code, more, sentence):
    made.checkpoint(8, words)
    answer, told = pod("check", "--against", "latest", code=code, more=more)
    assert answer.code == 0, answer
    assert (told["fits"], told["exitCode"]) == (False, 2)
    assert sentence in f"{told['what']} {told['where']}"
    assert json.loads(answer.out) == told


def test_without_a_snapshot_only_the_graph_is_built(pod, made):
    for against in (("--against", "none"), ()):
        answer, told = pod("check", *against)
        assert (answer.code, told["fits"], told["snapshot"]) == (0, True, None)
    _, told = pod("check", "--against", "none", code="def job(env):\n    raise KeyError(1)\n")
    assert told["fits"] is False


def test_a_checkpoint_that_the_job_has_dropped_since_is_answered_for_by_the_newest(
    pod, made, words, tmp_path
):
    made.checkpoint(7, words, retain=False)
    made.checkpoint(8, words)
    dropped = f"{made.checkpoints.url}/wordcount/chk-7"
    shutil.rmtree(tmp_path / "state/checkpoints/wordcount/chk-7")
    _, told = pod("check", "--against", dropped)
    assert told["fits"] is True
    assert told["snapshot"].endswith("chk-8")
    _, told = pod("check", "--against", dropped.replace("chk-7", "chk-9"))
    assert (told["fits"], told["exitCode"]) == (False, 2)


def test_a_damaged_snapshot_does_not_fit_and_is_told_apart(pod, made, words, tmp_path):
    made.checkpoint(8, words)
    next((tmp_path / "state/checkpoints/wordcount/shared").iterdir()).unlink()
    answer, told = pod("check")
    assert (answer.code, told["fits"], told["exitCode"]) == (0, False, 4)


def test_where_the_storage_is_away_there_is_no_verdict(pod, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    answer, told = pod("check", checkpoints="s3://bucket/checkpoints")
    assert (answer.code, answer.out) == (3, "")
    assert told["exitCode"] == 3
    assert "fits" not in told


def test_for_people_a_misfit_is_an_error(penstock, made, words, tmp_path):
    made.checkpoint(8, words)
    (tmp_path / "words.py").write_text(JOB.format(type="int", uid="sums"))
    found = penstock("check", "words:job", "chk-8")
    assert (found.code, found.out) == (2, "")
    assert "operator counts" in found.err
    (tmp_path / "words.py").write_text(JOB.format(type="int", uid="counts"))
    assert "no manifest is named" in penstock("check").err


def test_a_savepoint_is_disposed_of_and_disposing_again_is_no_error(pod, made, words, tmp_path):
    folder = made.savepoint("nightly", 3, words)
    other = made.savepoint("weekly", 4, words)
    answer, told = pod("dispose", "--savepoint", f"{made.savepoints.url}/{folder}")
    assert (answer.code, told["disposed"]) == (0, True)
    assert told["objects"] == 3
    assert not (tmp_path / "state/savepoints" / folder).exists()
    assert (tmp_path / "state/savepoints" / other / paths.METADATA).exists()
    answer, told = pod("dispose", "--savepoint", f"{made.savepoints.url}/{folder}")
    assert (answer.code, told["disposed"], told["objects"]) == (0, True, 0)


def test_what_tries_that_died_left_in_a_savepoints_folder_goes_with_it(pod, made, words, tmp_path):
    folder = made.savepoint("nightly", 3, words)
    made.savepoints.put(f"{folder}/1-2-counts-0-0123", b"of a try that died")
    _, told = pod("dispose", "--savepoint", f"{made.savepoints.url}/{folder}")
    assert (told["disposed"], told["objects"]) == (True, 4)
    assert not (tmp_path / "state/savepoints" / folder).exists()


def test_another_jobs_savepoint_is_not_disposed_of(pod, made, words):
    folder = made.savepoint("nightly", 3, words)
    answer, told = pod("dispose", "--savepoint", folder, more="  jobId: another\n")
    assert (answer.code, told["exitCode"]) == (2, 2)
    assert "savepoint of wordcount" in told["what"]
    assert made.savepoints.get(f"{folder}/{paths.METADATA}") is not None


def test_all_checkpoints_go_and_the_log_says_so_and_savepoints_stay(pod, made, words, tmp_path):
    made.checkpoint(8, words)
    made.checkpoint(109, words)
    folder = made.savepoint("nightly", 3, words)
    broken = "raise RuntimeError('this is why the job cannot run')\n"
    answer, told = pod("dispose", "--checkpoints", code=broken)
    assert (answer.code, told["disposed"]) == (0, True)
    storage = JobStorage(JobId("wordcount"), made.checkpoints, made.savepoints, tmp_path)
    left = [info.path for info in made.checkpoints.list("")]
    entry = read_newest_entry(storage)
    assert left == [paths.log_entry(storage.job, entry.seq)]
    assert (entry.end.kind, entry.end.committed) == (EndKind.CANCELLED, True)
    assert (entry.retained, entry.end.go_on_from) == ((), None)
    assert entry.attempt.next_checkpoint == 110, "numbers are never used twice"
    assert made.savepoints.get(f"{folder}/{paths.METADATA}") is not None
    answer, told = pod("dispose", "--checkpoints")
    assert (answer.code, told["objects"]) == (0, 0)
    assert read_newest_entry(storage) == entry


def test_checkpoints_of_another_owner_are_not_deleted(pod, made, words, monkeypatch):
    made.checkpoint(8, words)
    before = [info.path for info in made.checkpoints.list("")]
    monkeypatch.setenv("PENSTOCK_OWNER", "another/cluster/wordcount")
    answer, told = pod("dispose", "--checkpoints")
    assert (answer.code, told["exitCode"]) == (2, 2)
    assert "belongs to local/test" in told["what"]
    assert [info.path for info in made.checkpoints.list("")] == before


def test_disposing_wants_to_know_of_what(pod):
    answer, _ = pod("dispose")
    assert answer.code == 2
