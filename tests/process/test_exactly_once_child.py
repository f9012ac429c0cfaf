"""A child process by itself, with the test in its supervisor's place."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.process.support import JOB, TOKEN, WHERE_PENSTOCK_IS, Settings
from tests.process.support_jobs import JOBS

from penstock.connectors.parts import PendingFile
from penstock.core.ids import OperatorId, SubtaskId
from penstock.core.snapshots import OperatorRestore
from penstock.network import frames
from penstock.network.control import ControlSocket
from penstock.runtime.program import load_program

pytestmark = pytest.mark.process


@contextmanager
def _child(folder: Path) -> Iterator[ControlSocket]:
    ours, theirs = socket.socketpair()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "penstock.runtime.child", f"--fd={theirs.fileno()}"),
            *("--manifest=streamjob.yaml", f"--folder={folder}", f"--job={JOB}", "--worker=0"),
            *(f"--workdir={folder / 'local'}", "--host=127.0.0.1"),
        ],
        cwd=folder,
        env={**os.environ, "PENSTOCK_TOKEN": TOKEN, "PYTHONPATH": WHERE_PENSTOCK_IS},
        pass_fds=[theirs.fileno()],
    )
    theirs.close()
    control = ControlSocket(ours)
    try:
        yield control
    finally:
        control.close()
        process.kill()
        process.wait(10)


def _heard(control: ControlSocket, kind: type) -> Any:
    """The first frame of this kind."""
    deadline = time.monotonic() + 20
    while True:
        frame = control.receive(deadline - time.monotonic())
        assert frame is not None, control.end_reason
        assert not isinstance(frame, frames.Failed), frame
        if isinstance(frame, kind):
            return frame


@pytest.fixture
def job_folder(tmp_path: Path) -> Path:
    """A folder with the job of ten records."""
    (tmp_path / "counting_job.py").write_text(JOBS)
    settings = Settings(parameters={"count": 10, "per_second": 0})
    (tmp_path / "streamjob.yaml").write_text(settings.manifest())
    return tmp_path


def _prepare(folder: Path, *heads: str, **fields: Any) -> frames.Prepare:
    program = load_program(folder / "streamjob.yaml", folder)
    return frames.Prepare(
        attempt=3,
        parallelism=1,
        max_parallelism=128,
        placement=(0,),
        subtasks=tuple(SubtaskId(OperatorId(head), 0) for head in heads),
        job_nonce="n",
        graph=program.graph.to_json(),
        **fields,
    )


def test_what_an_ended_run_prepared_is_committed_by_a_child_that_does_nothing_else(
    job_folder: Path,
) -> None:
    name = "part-00000-00003-000001-0123abcd-0123abcd.jsonl"
    (job_folder / "out/.pending").mkdir(parents=True)
    (job_folder / "out/.pending" / name).write_text("[]\n")
    pending = json.loads(PendingFile("out", name, 3).encode())
    item = json.dumps({"checkpoint": 7, "transaction": pending}).encode()
    restore = {"out": {0: OperatorRestore(lists={"pending": (item,)})}}
    with _child(job_folder) as control:
        control.send(_prepare(job_folder, "check", restore=restore, committed=7, commit_only=True))
        assert _heard(control, frames.Committed).checkpoint == 7
    assert (job_folder / "out" / name).read_text() == "[]\n"
    assert list((job_folder / "out/.pending").iterdir()) == []


def test_a_checkpoint_that_is_triggered_together_with_the_start_is_taken(
    job_folder: Path,
) -> None:
    with _child(job_folder) as control:
        control.send(_prepare(job_folder, "records", "check", restore={}, committed=None))
        _heard(control, frames.Ready)
        control.post(frames.Run(3, {}))
        control.post(frames.Trigger(3, 1, None))
        control.flush()
        taken = {_heard(control, frames.Snapshotted).subtask.operator for _ in range(2)}
        assert taken == {"records", "check"}


def test_while_it_waits_for_others_to_be_ready_a_child_tells_that_it_lives(
    job_folder: Path,
) -> None:
    with _child(job_folder) as control:
        control.send(_prepare(job_folder, "records", "check", restore={}, committed=None))
        _heard(control, frames.Ready)
        for _ in range(2):
            assert _heard(control, frames.Heartbeat).attempt == 3
