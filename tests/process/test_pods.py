"""Coordinator and workers as pods run them: told by files and the environment, ended by SIGTERM."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.process.support import (
    REVISION,
    TOKEN,
    WHERE_PENSTOCK_IS,
    Cluster,
    Member,
    Settings,
    assert_same_lines,
    wait_for,
)
from tests.process.support_jobs import counts_of, lines_of

from penstock.core.log import EndKind
from penstock.snapshots import Snapshot

pytestmark = pytest.mark.process

OWNER = "3d9c0d0e-cluster/prod/counting"


class Pods(Cluster):
    """The processes of one job, none with a flag that a container in its own network needs not."""

    def environment(self, member: Member) -> dict[str, str]:
        token = self.folder / "token"
        token.write_text(TOKEN + "\n")
        found = {
            "PATH": os.environ["PATH"],
            "PENSTOCK_MANIFEST": str(self.folder / "streamjob.yaml"),
            "PENSTOCK_TOKEN_FILE": str(token),
            "PENSTOCK_FOLDER": str(self.folder),
            "PENSTOCK_POD_IP": "127.0.0.1",
            "PENSTOCK_TERMINATION_LOG": str(self.folder / f"{member.name}.message"),
        }
        if member.name == "coordinator":
            return {**found, "PENSTOCK_OWNER": OWNER, "PENSTOCK_REVISION": REVISION}
        return {
            **found,
            "PENSTOCK_COORDINATOR": f"127.0.0.1:{self.port}",
            "PENSTOCK_VOLUME": str(self.folder / "volumes" / member.name),
        }

    def _coordinator(self) -> Member:
        ports = ("--port", str(self.port), "--rest-port", str(self.rest_port))
        return Member(
            "coordinator", ["penstock", "coordinator", *ports, "--ports-file", "ports.json"]
        )

    def worker(self, ordinal: int, *, workdir: str | None = None) -> Member:
        """A worker, not started yet; all have this machine's host name."""
        command = ["penstock", "worker", "--worker", str(ordinal)]
        return Member(f"worker-{ordinal}", command)

    def is_registered(self, worker: Member) -> bool:
        """What a readiness probe asks."""
        return (self.folder / "volumes" / worker.name / "registered").exists()

    def lines(self, member: Member) -> list[dict[str, Any]]:
        """The log of a process, each line of which is JSON."""
        text = (self.folder / f"{member.name}.log").read_text()
        return [json.loads(line) for line in text.splitlines()]


def test_pods_run_a_job_and_one_worker_more_than_it_needs_idles_registered(tmp_path: Path) -> None:
    count = 40_000
    settings = Settings(parameters={"count": count, "per_second": 20_000})
    with Pods(tmp_path, settings, parallelism=2) as pods:
        spare = pods.worker(2)
        pods.add(spare)
        wait_for(lambda: all(map(pods.is_registered, [*pods.workers, spare])), "three workers")
        pods.start()
        pods.wait_for_phase("Finished")
        assert [w["id"] for w in pods.status()["workers"]] == [0, 1, 2]
        assert pods.newest_entry().owner == OWNER
        assert_same_lines(pods.output(), lines_of(count))
        assert pods.final_state() == counts_of(count)
        assert any(line["event"] == "coordinator ready" for line in pods.lines(pods.coordinator))


def test_a_change_of_parallelism_moves_only_what_the_disks_do_not_have(tmp_path: Path) -> None:
    settings = Settings(parameters={"count": 100_000_000, "per_second": 5_000})
    with Pods(tmp_path, settings, parallelism=1) as pods:
        pods.start()
        for ordinal in (1, 2):
            pods.add(pods.worker(ordinal))
        pods.wait_for_checkpoint()
        moved = {}
        for parallelism in (3, 2):
            wait_for(lambda: len(pods.status()["workers"]) == 3, "three workers")
            answer = pods.order("rescale", f"to-{parallelism}", parallelism=parallelism)
            assert answer["phase"] == "Done", answer
            status = pods.status()
            whole = Snapshot.open(status["restoredFrom"]).manifest.size_bytes
            moved[parallelism] = status["rescale"]["bytesMoved"] / whole
        # One worker's state, one file of which nothing can be left out, goes to two more; then each of
        # two fetches one other's third, and finds its own on its disk.
        assert 1 < moved[3] <= 2
        assert 0 < moved[2] < 1
        assert pods.order("stop", "stop")["phase"] == "Done"
        counts = pods.final_state()
        lines = [f'["{key}",{n},{n + 1}]' for key, count in counts.items() for n in range(count)]
        assert_same_lines(pods.output(), sorted(lines))


def test_a_worker_that_is_asked_to_end_leaves_nothing_behind_and_the_job_goes_on(
    tmp_path: Path,
) -> None:
    count = 100_000
    settings = Settings(parameters={"count": count, "per_second": 20_000})
    with Pods(tmp_path, settings, parallelism=2) as pods:
        pods.start()
        pods.wait_for_checkpoint()
        leaving = pods.workers[1]
        leaving.is_kept = False
        children = leaving.children()
        assert children
        leaving.signal(signal.SIGTERM)
        assert leaving.process is not None
        assert leaving.process.wait(30) == 0
        assert not pods.is_registered(leaving)
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), "no child")
        pods.add(pods.worker(1))
        pods.wait_for_phase("Finished")
        assert_same_lines(pods.output(), lines_of(count))


def test_a_child_dies_with_its_worker_though_it_hears_nothing(tmp_path: Path) -> None:
    settings = Settings(parameters={"count": 100_000, "per_second": 20_000})
    with Pods(tmp_path, settings, parallelism=1) as pods:
        pods.start()
        pods.wait_for_checkpoint()
        worker = pods.workers[0]
        worker.is_kept = False
        children = worker.children()
        for child in children:
            os.kill(child, signal.SIGSTOP)
        worker.signal(signal.SIGKILL)
        for child in children:
            os.kill(child, signal.SIGCONT)
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), "no child")


def test_a_coordinator_of_another_owner_says_who_has_the_job(tmp_path: Path) -> None:
    settings = Settings(parameters={"count": 1_000, "per_second": 0})
    with Pods(tmp_path, settings, parallelism=1) as pods:
        pods.start()
        pods.wait_for_phase("Finished")
        message = tmp_path / "other.message"
        environment = {
            **pods.environment(pods.coordinator),
            "PYTHONPATH": WHERE_PENSTOCK_IS,
            "PENSTOCK_OWNER": "3d9c0d0e-cluster/test/counting",
            "PENSTOCK_TERMINATION_LOG": str(message),
        }
        other = _run("coordinator", "--port", "0", "--rest-port", "0", env=environment)
        told = json.loads(message.read_text())
        assert other.returncode == told["exitCode"] == 5
        assert OWNER in told["what"]
        assert json.loads(other.stderr.splitlines()[-1])["event"] == told["what"]


def test_a_worker_gives_up_a_coordinator_that_has_gone_silent(tmp_path: Path) -> None:
    count = 100_000
    settings = Settings(
        parameters={"count": count, "per_second": 20_000},
        more="  worker: {heartbeatTimeout: 2s}\n",
    )
    with Pods(tmp_path, settings, parallelism=1) as pods:
        pods.start()
        pods.wait_for_checkpoint()
        [worker] = pods.workers
        pods.coordinator.signal(signal.SIGSTOP)
        silent = "coordinator silent"
        wait_for(lambda: any(x["event"] == silent for x in pods.lines(worker)), silent)
        wait_for(lambda: not pods.is_registered(worker), "it is not ready")
        pods.coordinator.signal(signal.SIGCONT)
        pods.wait_for_phase("Finished")
        assert_same_lines(pods.output(), lines_of(count))


class HeldPods(Pods):
    """Its coordinator stands still once a run's end is in the log, before anything follows."""

    def environment(self, member: Member) -> dict[str, str]:
        return {**super().environment(member), "PENSTOCK_HOLD_AT": "ended"}


def test_a_coordinator_killed_between_a_stops_savepoint_and_its_answer_never_runs_on(
    tmp_path: Path,
) -> None:
    settings = Settings(parameters={"count": 1_000_000, "per_second": 20_000})
    with HeldPods(tmp_path, settings, parallelism=2) as pods:
        pods.start()
        pods.wait_for_checkpoint()
        pods.call("POST", "stop?wait=0", {"requestId": "stop"})
        end = wait_for(lambda: pods.newest_entry().end, "the end is in the log")
        wait_for(lambda: any(x["event"] == "held" for x in pods.lines(pods.coordinator)), "held")
        assert (end.kind, end.committed) == (EndKind.STOPPED, False)
        pods.coordinator.signal(signal.SIGKILL)
        answer = pods.order("stop", "stop")
        assert answer["phase"] == "Done", answer
        assert Path(answer["path"].removeprefix("file://"), "_metadata").exists()
        entry = pods.newest_entry()
        assert entry.end is not None
        assert (entry.end.kind, entry.end.committed, entry.attempt.number) == (
            EndKind.STOPPED,
            True,
            1,
        )
        counts = pods.final_state()
        assert sum(counts.values()) == len(pods.output()) > 0


@pytest.mark.parametrize("kind", ["coordinator", "worker"])
def test_a_wrong_manifest_is_told_in_the_termination_message(tmp_path: Path, kind: str) -> None:
    environment = _environment(tmp_path, spec="{paralellism: 2, entrypoint: job:job}")
    ended = _run(kind, env=environment)
    told = json.loads((tmp_path / "message").read_text())
    assert ended.returncode == told["exitCode"] == 2
    assert "paralellism" in json.dumps(told)


def test_a_job_that_raises_is_told_in_the_termination_message(tmp_path: Path) -> None:
    script = "def job(env):\n    raise KeyError('no such corpus')\n"
    spec = json.dumps({"script": script, "checkpoints": {"storage": str(tmp_path / "state")}})
    ended = _run("coordinator", env=_environment(tmp_path, spec=spec))
    told = json.loads((tmp_path / "message").read_text())
    assert ended.returncode == told["exitCode"] == 2
    assert "no such corpus" in told["what"]
    assert "job.py" in told["where"]


def test_a_coordinator_whose_job_hangs_ends_when_it_is_asked_to(tmp_path: Path) -> None:
    marker = tmp_path / "is-called"
    script = (
        "import pathlib, time\n"
        f"def job(env):\n    pathlib.Path({str(marker)!r}).touch()\n    time.sleep(600)\n"
    )
    spec = json.dumps({"script": script, "checkpoints": {"storage": str(tmp_path / "state")}})
    process = subprocess.Popen(
        [sys.executable, "-m", "penstock", "coordinator"],
        env=_environment(tmp_path, spec=spec),
        stderr=subprocess.DEVNULL,
    )
    wait_for(marker.exists, "job() is called")
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0


def _environment(folder: Path, *, spec: str) -> dict[str, str]:
    (folder / "streamjob.yaml").write_text(
        f"apiVersion: penstock.dev/v1alpha1\nkind: StreamJob\nmetadata: {{name: x}}\nspec: {spec}\n"
    )
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": WHERE_PENSTOCK_IS,
        "PENSTOCK_MANIFEST": str(folder / "streamjob.yaml"),
        "PENSTOCK_FOLDER": str(folder),
        "PENSTOCK_TOKEN": TOKEN,
        "PENSTOCK_TERMINATION_LOG": str(folder / "message"),
    }


def _run(*arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "penstock", *arguments],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
