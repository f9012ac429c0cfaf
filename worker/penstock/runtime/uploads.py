"""The parts of checkpoints that are on their way from a worker's disk to the store.

A part goes up once both it and its checkpoint's trigger are there. What was given up meanwhile is
deleted, what nobody wants any more goes from the disk, and what is acknowledged may stay as a local
copy. Everything but the moving of bytes happens on the supervisor's main thread.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol, TypeVar

from penstock.core import paths
from penstock.core.errors import PenstockError, Retryable
from penstock.core.handles import KeyedFormat
from penstock.core.ids import CheckpointId, OperatorId
from penstock.core.snapshots import RestorePlan
from penstock.network import frames
from penstock.network.frames import AnyFrame
from penstock.runtime.job_storage import JobStorage
from penstock.runtime.logs import get_logger
from penstock.runtime.pairing import Pairing
from penstock.runtime.transfers import Aborted, LocalCopies, Upload, Uploader

log = get_logger()

T = TypeVar("T")


class Beside(Protocol):
    """Runs what would stop the main thread."""

    def __call__(self, work: Callable[[], T], then: Callable[[T], None], /) -> None:
        """Run work on a thread, and then `then` with its result on the main one."""
        ...


class Uploads:
    """Those of one worker, of one attempt after the other.

    `copies` keeps what was acknowledged, None keeps nothing; `tell` reaches the coordinator.
    """

    def __init__(
        self,
        storage: JobStorage,
        copies: LocalCopies | None,
        *,
        tell: Callable[[AnyFrame], None],
        beside: Beside,
    ) -> None:
        self._storage = storage
        self._copies = copies
        self._tell = tell
        self._beside = beside
        self._uploader: Uploader | None = None
        self._pairing = Pairing()
        self._under_way: list[Upload] = []
        self._checkpoint: CheckpointId | None = None

    @property
    def is_awaited(self) -> bool:
        """Whether a checkpoint was triggered that is neither complete nor given up."""
        return self._checkpoint is not None

    def begin(self, uploader: Uploader) -> None:
        """Another attempt begins, after `end` of the former one."""
        self._uploader = uploader
        self._pairing = Pairing()

    def end(self) -> None:
        """The attempt is over: nothing that is on its way is told any more."""
        self._checkpoint = None
        for upload in self._under_way:
            upload.is_aborted = True

    def restored(self, plan: RestorePlan) -> None:
        """A database that goes on from a checkpoint of this job keeps its files' names."""
        assert self._uploader is not None
        for operator, by_subtask in plan.items():
            for index, restore in by_subtask.items():
                n = self._own_checkpoint(restore.local)
                if n is not None and len(restore.keyed) == 1:
                    handle = restore.keyed[0].handle
                    if handle.format is KeyedFormat.ROCKSDB:
                        self._uploader.knows(n, operator, index, handle)

    def _own_checkpoint(self, path: str | None) -> CheckpointId | None:
        # Another job's counts its own, and its files lie in its own folder.
        if path is None or not path.startswith(f"{self._storage.job}/"):
            return None
        return paths.checkpoint_of(path)

    def triggered(self, trigger: frames.Trigger) -> None:
        """The coordinator began a checkpoint."""
        self._checkpoint = trigger.checkpoint
        self._begin_all(self._pairing.triggered(trigger))

    def snapshotted(self, part: frames.Snapshotted) -> None:
        """The child wrote a part."""
        self._begin_all(self._pairing.snapshotted(part))

    def aborted(self, checkpoint: CheckpointId) -> None:
        """The coordinator gave a checkpoint up."""
        self._over(checkpoint)
        for upload in self._under_way:
            if upload.snapshotted.checkpoint == checkpoint:
                upload.is_aborted = True

    def completed(self, checkpoint: CheckpointId) -> None:
        """A checkpoint is complete: it may be the base of others, older ones may not."""
        assert self._uploader is not None
        self._uploader.forget_before(checkpoint)
        self._over(checkpoint)

    def _over(self, checkpoint: CheckpointId) -> None:
        if self._checkpoint is not None and self._checkpoint <= checkpoint:
            self._checkpoint = None
        self._pairing.over(checkpoint)
        self._begin_all(())

    def _begin_all(self, pairs: Iterable[tuple[frames.Snapshotted, frames.Trigger]]) -> None:
        for part, trigger in pairs:
            self._begin_one(Upload(part, trigger))
        for part in self._pairing.take_stale():
            _remove_all(part.copies.values())

    def _begin_one(self, upload: Upload) -> None:
        uploader = self._uploader
        assert uploader is not None
        self._under_way.append(upload)
        self._beside(
            lambda: _outcome(uploader, upload), lambda outcome: self._done(upload, outcome)
        )

    def _done(self, upload: Upload, outcome: frames.Acked | PenstockError | Aborted) -> None:
        self._under_way.remove(upload)
        part = upload.snapshotted
        if isinstance(outcome, frames.Acked) and not upload.is_aborted:
            self._tell(outcome)
            if self._copies is not None and upload.trigger.savepoint is None:
                self._keep(self._copies, outcome, part.copies)
                return
        else:
            self._delete(upload)
            if isinstance(outcome, PenstockError):
                reason = outcome.in_a_line
                self._tell(frames.Declined(part.attempt, part.checkpoint, part.subtask, reason))
        _remove_all(part.copies.values())

    def _keep(
        self, copies: LocalCopies, acked: frames.Acked, written: dict[OperatorId, str]
    ) -> None:
        try:
            copies.keep(acked, written)
        except OSError:  # another file system, perhaps
            self._beside(lambda: _copy(copies, acked, written), lambda _: None)

    def _delete(self, upload: Upload) -> None:
        files, is_savepoint = list(upload.files), upload.trigger.savepoint is not None
        store = self._storage.savepoints if is_savepoint else self._storage.checkpoints

        def delete() -> None:
            try:
                store.delete(files)
            except PenstockError as e:
                # They are named after this attempt: a sweep of the store finds what is left here.
                log.warning(
                    "files of an aborted checkpoint are left", error=e.what, files=len(files)
                )

        self._beside(delete, lambda _: None)


def ours(error: PenstockError | OSError) -> PenstockError:
    """An error of a transfer as one of ours: what the system says is of the worker's disk."""
    return error if isinstance(error, PenstockError) else Retryable(f"the worker's disk: {error}")


def _outcome(uploader: Uploader, upload: Upload) -> frames.Acked | PenstockError | Aborted:
    try:
        return uploader.run(upload)
    except Aborted as e:
        return e
    except (PenstockError, OSError) as e:
        return ours(e)


def _copy(copies: LocalCopies, acked: frames.Acked, written: dict[OperatorId, str]) -> None:
    try:
        copies.keep(acked, written, across=True)
    except OSError as e:
        log.warning("no local copy is kept", checkpoint=acked.checkpoint, error=str(e))
        _remove_all(written.values())


def _remove_all(copies: Iterable[str]) -> None:
    for path in map(Path, copies):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
