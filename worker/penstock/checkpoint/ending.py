"""What is left to do between the entry that ends a run and the one that says it is committed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from penstock.checkpoint import log
from penstock.checkpoint.attempt import RunningAttempt
from penstock.checkpoint.effects import PublishSavepoint
from penstock.checkpoint.pending import as_savepoint
from penstock.core import paths
from penstock.core.ids import CheckpointId
from penstock.core.log import Entry, SnapshotRef
from penstock.core.manifest import Manifest


@dataclass(slots=True)
class Ending:
    """Sinks commit up to `committed` (None: there is nothing), the savepoint gets its manifest.

    `is_deployed`: workers are about to commit, those of the run or some deployed for that alone.
    """

    committed: CheckpointId | None
    is_deployed: bool
    unpublished: set[str] = field(default_factory=set)

    def is_done(self, run: RunningAttempt | None) -> bool:
        """Whether nothing is left."""
        return not self.unpublished and self.is_committed(run)

    def is_committed(self, run: RunningAttempt | None) -> bool:
        """Whether all sinks have committed."""
        return self.committed is None or (run is not None and run.has_committed(self.committed))


def savepoint_of(entry: Entry, manifest: Manifest, savepoints_url: str) -> PublishSavepoint | None:
    """The copy that makes the checkpoint which a stop ended with a savepoint of its own."""
    end = entry.end
    if end is None or end.savepoint is None:
        return None
    return PublishSavepoint(
        entry.request_id or "",
        end.savepoint + paths.METADATA,
        as_savepoint(manifest, f"{savepoints_url}/{end.savepoint}"),
    )


def committed_entry(
    ended: Entry,
    *,
    nonce: str,
    at_ms: int,
    undeleted: tuple[SnapshotRef, ...],
) -> Entry:
    """The entry that says that everything is committed; a cancel may drop all checkpoints by it."""
    end = ended.end
    assert end is not None, ended
    drops_all = end.deletes
    return log.ended(
        ended,
        replace(end, committed=True, go_on_from=None if drops_all else end.go_on_from),
        nonce=nonce,
        at_ms=at_ms,
        request_id=ended.request_id,
        retained=() if drops_all else ended.retained,
        dropping=(*undeleted, *(ended.retained if drops_all else ())),
        hold=None if drops_all else ended.hold,
    )
