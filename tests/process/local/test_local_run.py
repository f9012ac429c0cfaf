"""A job on this machine, with real coordinator and workers."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

import penstock
from penstock.core.errors import Corrupt, PenstockError, Rejected
from penstock.runtime.local import EndedAs, LocalRun, LocalRunConfig
from penstock.runtime.registry import running_jobs
from penstock.spec.loading import load_manifest
from penstock.spec.orders import JobPhase

pytestmark = pytest.mark.process

_JOB = """
from penstock import formats, sinks, sources

def job(env, *, input: str, per_second: int = 0):
    limit = {"per_second": per_second} if per_second else {}
    lines = env.source(sources.Files(input, **limit), uid="lines")
    counts = lines.key_by(lambda line: line).count(uid="counts")
    counts.sink(sinks.Files("out/", formats.Json()), uid="out")
"""
_MANIFEST = """
apiVersion: penstock.dev/v1alpha1
kind: StreamJob
metadata: {{name: counting}}
spec:
  entrypoint: counting_job:job
  parameters: {{input: "input/*.txt", per_second: {per_second}}}
  parallelism: {parallelism}
  checkpoints: {{interval: 200ms, storage: {storage}/checkpoints}}
  savepoints: {{storage: {storage}/savepoints}}
  restart: {restart}
"""
LINES = [f"word-{i % 7}" for i in range(300)]


@pytest.fixture(autouse=True)
def state_home(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.setenv("PYTHONPATH", str(Path(penstock.__file__).parents[1]))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "counting_job.py").write_text(_JOB)
    (tmp_path / "input").mkdir()
    (tmp_path / "input" / "a.txt").write_text("\n".join(LINES) + "\n")
    return tmp_path


def local_run(
    folder,
    *,
    restore=None,
    per_second=0,
    parallelism=1,
    storage="state",
    restart="{strategy: FixedDelay, delay: 50ms}",
):
    path = folder / "streamjob.yaml"
    path.write_text(
        _MANIFEST.format(
            per_second=per_second, parallelism=parallelism, storage=storage, restart=restart
        )
    )
    return LocalRun(
        LocalRunConfig(load_manifest(path).job, folder, "streamjob.yaml", restore, rest_port=0)
    )


def run(local, on_status=None):
    return asyncio.run(asyncio.wait_for(local.run(on_status), 90))


def written(folder):
    files = sorted((folder / "out").glob("*.jsonl"))
    return [tuple(json.loads(line)) for f in files for line in f.read_text().splitlines()]


def expected(lines):
    seen, found = {}, []
    for line in lines:
        seen[line] = seen.get(line, 0) + 1
        found.append((line, seen[line]))
    return sorted(found)


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for(fact, what, within_s=30.0):
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if value := fact():
            return value
        time.sleep(0.05)
    pytest.fail(f"not within {within_s} s: {what}")


def test_a_bounded_job_finishes_and_once_more_there_is_nothing_to_do(folder):
    outcome = run(local_run(folder))
    assert outcome.ended is EndedAs.FINISHED
    assert sorted(written(folder)) == expected(LINES)
    assert outcome.goes_on_from == outcome.status.last_checkpoint.path
    again = run(local_run(folder))
    assert again.ended is EndedAs.ALREADY_FINISHED
    assert again.goes_on_from == outcome.goes_on_from
    assert again.ended_ago_ms > 0
    assert sorted(written(folder)) == expected(LINES)
    (folder / "input" / "b.txt").write_text("word-1\n")
    assert run(local_run(folder)).ended is EndedAs.FINISHED
    assert sorted(written(folder)) == expected([*LINES, "word-1"])


def stopped_on_the_way(folder):
    """A run that was stopped with a savepoint after its first checkpoint; the answer, the outcome."""
    local = local_run(folder, per_second=200)

    async def stop_after_a_checkpoint():
        enough = asyncio.Event()

        def look(status):
            if status.last_checkpoint is not None:
                enough.set()

        running = asyncio.create_task(local.run(look))
        await asyncio.wait_for(enough.wait(), 60)
        answer = await local.stop_with_savepoint()
        return answer, await running

    answer, outcome = asyncio.run(stop_after_a_checkpoint())
    assert outcome.ended is EndedAs.STOPPED
    assert 0 < len(written(folder)) < len(LINES)
    return answer, outcome


def test_a_stopped_job_goes_on_where_it_was_at_another_parallelism(folder):
    answer, outcome = stopped_on_the_way(folder)
    assert outcome.savepoint == answer.path
    assert run(local_run(folder, parallelism=2)).ended is EndedAs.FINISHED
    assert sorted(written(folder)) == expected(LINES)


def test_restored_from_an_older_snapshot_what_was_written_after_it_is_written_again(folder):
    answer, _ = stopped_on_the_way(folder)
    before = sorted(written(folder))
    assert run(local_run(folder)).ended is EndedAs.FINISHED
    assert sorted(written(folder)) == expected(LINES)
    assert run(local_run(folder, restore=answer.path)).ended is EndedAs.FINISHED
    after = Counter(expected(LINES)) - Counter(before)
    assert after, "nothing was left to be written after the savepoint"
    # Each count goes on from the savepoint's, so what comes again is the same, not counted on.
    assert Counter(written(folder)) == Counter(expected(LINES)) + after


def test_from_a_damaged_log_a_savepoint_is_the_way_out_into_another_storage(folder):
    answer, _ = stopped_on_the_way(folder)
    newest = max((folder / "state/checkpoints/counting/log").iterdir())
    newest.chmod(0o600)
    newest.write_bytes(newest.read_bytes().replace(b'"parallelism": 1', b'"parallelism": 3'))
    for restore in (None, answer.path):
        with pytest.raises(Corrupt, match="entry of the job's log is damaged") as e:
            run(local_run(folder, restore=restore))
        assert str(newest) in e.value.where
    elsewhere = local_run(folder, restore=answer.path, storage="elsewhere")
    assert run(elsewhere).ended is EndedAs.FINISHED
    assert sorted(written(folder)) == expected(LINES)


def test_whoever_is_killed_comes_back_and_nothing_is_lost_or_written_twice(folder):
    local = local_run(folder, per_second=100)
    victims = ["coordinator", "worker 0"]

    def kill_one(status):
        last = status.last_checkpoint
        if victims and last is not None and status.phase == "Running":
            pids = local._run.processes.pids()
            if victims[-1] in pids:
                os.kill(pids[victims.pop()], signal.SIGKILL)

    outcome = run(local, kill_one)
    assert victims == []
    assert local._run.processes.restarts >= 2
    assert outcome.ended is EndedAs.FINISHED
    assert sorted(written(folder)) == expected(LINES)


def test_a_cancelled_run_leaves_no_process_behind(folder):
    local = local_run(folder, per_second=10)

    async def cancel_when_it_runs():
        runs = asyncio.Event()
        running = asyncio.create_task(
            local.run(lambda status: runs.set() if status.phase == "Running" else None)
        )
        await asyncio.wait_for(runs.wait(), 60)
        pids = local._run.processes.pids().values()
        assert [job.name for job in running_jobs()] == ["counting"]
        with pytest.raises(Rejected, match="runs on this machine already"):
            await local_run(folder).run()
        await local.cancel()
        return await running, list(pids)

    outcome, pids = asyncio.run(cancel_when_it_runs())
    assert outcome.ended is EndedAs.CANCELLED
    assert len(pids) == 2
    assert not any(is_alive(pid) for pid in pids)
    assert running_jobs() == []


def test_when_the_parent_is_killed_all_its_processes_die(folder):
    local_run(folder, per_second=10)
    program = (
        "import asyncio\n"
        "from pathlib import Path\n"
        "from penstock.runtime.local import LocalRun, LocalRunConfig\n"
        "from penstock.spec.loading import load_manifest\n"
        "job = load_manifest(Path('streamjob.yaml')).job\n"
        "run = LocalRun(LocalRunConfig(job, Path(), 'streamjob.yaml', rest_port=0))\n"
        "def tell(status):\n"
        "    pids = run._run.processes.pids().values()\n"
        "    status.phase == 'Running' and print(*pids, flush=True)\n"
        "asyncio.run(run.run(tell))\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program], cwd=folder, stdout=subprocess.PIPE, text=True
    )
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2
    children = [
        int(pid) for p in pids for pid in Path(f"/proc/{p}/task/{p}/children").read_text().split()
    ]
    parent.kill()
    parent.wait()
    wait_for(lambda: not any(is_alive(p) for p in [*pids, *children]), "all processes die")


def test_what_is_wrong_with_the_state_to_go_on_from_is_told_and_nothing_runs(folder):
    assert run(local_run(folder)).ended is EndedAs.FINISHED
    with pytest.raises(Rejected, match="no snapshot: elsewhere"):
        run(local_run(folder, restore="elsewhere"))
    (metadata,) = (folder / "state/checkpoints/counting").glob("chk-*/_metadata")
    metadata.write_text("{}")
    with pytest.raises(Corrupt, match="is not the one that the job's log names"):
        run(local_run(folder, restore=metadata.parent.name))


_SINK = """

class Kept(FilesWriter):
    def commit(self, transaction):
        if Path("lose").exists():
            for prepared in filter(Path.is_file, Path("out").rglob("*")):
                prepared.unlink()
        if Path("no-room").exists():
            raise OSError(28, "No space left on device")
        super().commit(transaction)

class Files(sinks.Files):
    def open(self, ctx):
        return Kept(self._path, self._format, ctx, roll_ms=None)
"""


def with_a_sink_that_obeys_files(folder):
    """What it has prepared vanishes while there is a file `lose`, and waits while there is `no-room`."""
    imports = "from pathlib import Path\nfrom penstock.connectors.files_sink import FilesWriter\n"
    job = imports + _JOB.replace("\ndef job", _SINK + "\ndef job").replace(
        'sinks.Files("out', 'Files("out'
    )
    (folder / "counting_job.py").write_text(job)


def test_a_job_whose_last_output_is_gone_has_not_finished_and_says_what_to_do(folder):
    with_a_sink_that_obeys_files(folder)
    (folder / "lose").touch()
    for _ in range(2):  # once more it tries again, and ends
        with pytest.raises(Corrupt, match="could not be committed") as told:
            run(local_run(folder))
        assert told.value.exit_code == 4
        assert "put an empty file of this name there" in told.value.fix
    (folder / "lose").unlink()
    (gone,) = re.findall(r"\((\S+)\)", told.value.what)
    Path(gone).touch()
    assert run(local_run(folder)).status.phase is JobPhase.FINISHED
    assert written(folder) == []


def test_a_stop_ends_a_run_whose_output_cannot_be_committed_and_the_next_one_commits_it(folder):
    with_a_sink_that_obeys_files(folder)
    (folder / "no-room").touch()
    local = local_run(folder)

    async def stop_while_it_tries():
        tried = asyncio.Event()

        def look(status):
            if status.uncommitted is not None:
                tried.set()

        running = asyncio.create_task(local.run(look))
        await asyncio.wait_for(tried.wait(), 60)
        with pytest.raises(Rejected):
            await local.stop_with_savepoint()
        await asyncio.wait_for(running, 60)

    with pytest.raises(PenstockError, match="No space left") as told:
        asyncio.run(stop_while_it_tries())
    assert told.value.exit_code == 1
    (folder / "no-room").unlink()
    assert run(local_run(folder)).status.phase is JobPhase.FINISHED
    assert sorted(written(folder)) == expected(LINES)


@pytest.mark.parametrize(
    ("restart", "times"),
    [("{strategy: None}", ""), ("{strategy: FixedDelay, delay: 10ms, attempts: 1}", ", 2 times")],
)
@pytest.mark.parametrize("who", ["supervisor", "coordinator"])
def test_a_process_that_falls_at_once_ends_the_run_as_often_as_the_restart_strategy_says(
    folder, tmp_path_factory, monkeypatch, who, restart, times
):
    broken = tmp_path_factory.mktemp("broken")
    (broken / "sitecustomize.py").write_text(
        "import os, sys\n"
        f"if 'penstock.runtime.{who}' in sys.orig_argv:\n"
        "    os.write(2, b'no such library: libgone.so\\n')\n"
        "    os._exit(3)\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{broken}:{os.environ['PYTHONPATH']}")
    with pytest.raises(PenstockError) as e:
        run(local_run(folder, restart=restart))
    name = {"supervisor": "worker 0"}.get(who, who)
    assert e.value.what.startswith(
        f"{name} ended with exit code 3 as soon as it was started{times}"
    )
    assert e.value.where == "no such library: libgone.so"
    assert e.value.exit_code == 1
    assert "run the job again" in e.value.fix


def test_a_port_that_is_taken_is_told_before_anything_starts(folder):
    import socket

    local = local_run(folder)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = LocalRunConfig(local.manifest, folder, "streamjob.yaml", rest_port=port)
        with pytest.raises(Rejected, match=f"port {port} is taken"):
            run(LocalRun(config))
