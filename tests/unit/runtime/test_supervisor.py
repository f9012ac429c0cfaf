"""What a supervisor hands to which child."""

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from penstock.core.errors import Corrupt, PenstockError
from penstock.core.failure import Failure
from penstock.core.ids import JobId, WorkerId
from penstock.network import frames
from penstock.network.control import ControlSocket
from penstock.runtime.children import ChildProcess
from penstock.runtime.job_storage import JobStorage
from penstock.runtime.supervisor import Supervisor, SupervisorConfig
from penstock.runtime.transfers import Brought, Uploader
from penstock.spec.loading import load_manifest
from penstock.storage.files import os_errors_translated
from penstock.storage.memory import MemoryStore
from penstock.storage.s3_errors import translated_code

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


@pytest.mark.parametrize(
    ("refused", "fatal"),
    [
        (translated_code("ExpiredToken", "", bucket="b", where="s3://b/x"), False),
        (translated_code("AccessDenied", "", bucket="b", where="s3://b/x"), False),
        (translated_code("NoSuchBucket", "", bucket="b", where="s3://b/x"), True),
        (Corrupt("a file is damaged"), True),
    ],
)
def test_what_storage_denies_while_state_is_fetched_does_not_end_the_job_and_damage_does(
    supervisor: Supervisor, refused: PenstockError, *, fatal: bool
) -> None:
    assert _told_of(supervisor, refused).fatal is fatal


def test_a_disk_that_is_full_while_state_is_fetched_does_not_end_the_job(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    with pytest.raises(PenstockError) as full, os_errors_translated(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")
    told = _told_of(supervisor, full.value)
    assert (told.fatal, told.fix) == (False, full.value.fix)


def _told_of(supervisor: Supervisor, refused: PenstockError) -> Failure:
    """What the coordinator hears when the state of an attempt cannot be fetched."""
    ours, theirs = socket.socketpair()
    supervisor._coordinator = ControlSocket(ours)
    plan = _prepare(commit_only=False)
    child = ChildProcess(None, supervisor._coordinator)  # type: ignore[arg-type]
    _begin(supervisor, child, plan)
    supervisor._fetched(child, plan, refused)
    heard = ControlSocket(theirs)
    failed = heard.receive(5)
    heard.close()
    ours.close()
    assert isinstance(failed, frames.Failed)
    return failed.failure


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
