"""What a supervisor hands to which child."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from penstock.core.ids import JobId, WorkerId
from penstock.network import frames
from penstock.network.control import ControlSocket
from penstock.runtime.children import ChildProcess
from penstock.runtime.job_storage import JobStorage
from penstock.runtime.supervisor import Supervisor, SupervisorConfig
from penstock.runtime.transfers import Brought, Uploader
from penstock.spec.loading import load_manifest
from penstock.storage.memory import MemoryStore

_MANIFEST = """
apiVersion: penstock.dev/v1alpha1
kind: StreamJob
metadata: {name: counting}
spec: {entrypoint: "counting_job:job", checkpoints: {storage: state}}
"""


@pytest.fixture
def supervisor(tmp_path: Path) -> Supervisor:
    manifest = tmp_path / "streamjob.yaml"
    manifest.write_text(_MANIFEST)
    config = SupervisorConfig(
        WorkerId(0), ("127.0.0.1", 1), manifest, tmp_path, tmp_path / "local", "127.0.0.1", "token"
    )
    store = MemoryStore(lambda: 0)
    storage = JobStorage(JobId("counting"), store, store, tmp_path)
    return Supervisor(config, load_manifest(manifest).job, storage)


def test_a_download_for_an_attempt_that_ended_is_not_given_to_the_child_that_commits(
    supervisor: Supervisor,
) -> None:
    ours, theirs = socket.socketpair()
    to_run = _prepare(commit_only=False)
    to_commit = _prepare(commit_only=True)
    former, now = (ChildProcess(None, ControlSocket(ours)) for _ in range(2))  # type: ignore[arg-type]
    _begin(supervisor, now, to_commit)
    supervisor._fetched(former, to_run, Brought({}, 0))
    supervisor._fetched(now, to_commit, Brought({}, 0))
    ours.close()
    heard = ControlSocket(theirs)
    assert [f.commit_only for f in iter(heard.receive, None)] == [True]
    heard.close()


def _prepare(*, commit_only: bool) -> frames.Prepare:
    return frames.Prepare(
        attempt=3,
        parallelism=1,
        max_parallelism=128,
        placement=(0,),
        subtasks=(),
        restore={},
        committed=None,
        job_nonce="n",
        graph={},
        commit_only=commit_only,
    )


def test_asked_to_end_a_worker_lets_the_checkpoint_under_way_finish(
    supervisor: Supervisor,
) -> None:
    with _running(supervisor) as child:
        supervisor._ordered(frames.Trigger(3, 5, None))
        assert isinstance(child.receive(5), frames.Trigger)
        supervisor.leave()
        assert not supervisor._may_leave()
        supervisor._ordered(frames.Aborted(3, 4, "an older one"))
        assert not supervisor._may_leave()
        supervisor._ordered(frames.Aborted(3, 5, "given up"))
        assert supervisor._may_leave()


def test_a_checkpoint_that_takes_too_long_is_not_waited_for(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.runtime.supervisor._LEAVE_S", 0.0)
    with _running(supervisor):
        supervisor._ordered(frames.Trigger(3, 5, None))
        supervisor.leave()
        assert supervisor._may_leave()


def test_without_a_checkpoint_it_leaves_at_once(supervisor: Supervisor) -> None:
    with _running(supervisor):
        assert not supervisor._may_leave()
        supervisor.leave()
        assert supervisor._may_leave()


@contextmanager
def _running(supervisor: Supervisor) -> Iterator[ControlSocket]:
    """As while it serves an attempt; gives the child's end of its connection."""
    ours, theirs = socket.socketpair()
    plan = _prepare(commit_only=False)
    _begin(supervisor, ChildProcess(None, ControlSocket(ours)), plan)  # type: ignore[arg-type]
    supervisor._is_serving = True
    child = ControlSocket(theirs)
    yield child
    child.close()
    ours.close()


def _begin(supervisor: Supervisor, child: ChildProcess, plan: frames.Prepare) -> None:
    child.take(plan)
    supervisor._children.at_work = child
    supervisor._uploads.begin(
        Uploader(
            supervisor._storage,
            plan.attempt,
            max_parallelism=128,
            is_incremental=True,
            keeps_in_manifest=False,
        )
    )
