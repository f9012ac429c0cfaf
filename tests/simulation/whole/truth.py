"""What the store and the world outside really hold, in the words of the operator's simulation: its people,
its rule of intentions and its oracles look at this instead of a model's store."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from tests.simulation.operator import store as model
from tests.simulation.operator.store import Snapshot
from tests.simulation.whole.programs import schema_of
from tests.simulation.whole.storage import CHECKPOINTS

from penstock.checkpoint import log
from penstock.checkpoint.start import RESTORE_ID
from penstock.core import paths
from penstock.core.log import EndKind, Entry, SnapshotRef
from penstock.core.manifest import Manifest
from penstock.testing.simulation import job
from penstock.testing.simulation.job import COUNTS, OUT
from penstock.testing.simulation.outside import Outside
from penstock.testing.simulation.store import SAVEPOINTS, SimulatedStore


@dataclass(frozen=True, slots=True)
class Output:
    """What a reader of the first sink sees."""

    outside: Outside

    @property
    def stop(self) -> int:
        """How many records."""
        return len(self.outside.visible(OUT))


class Truth:
    """Follows the store. `watch` is told each entry after `newest` is it."""

    def __init__(self, store: SimulatedStore, outside: Outside) -> None:
        self.newest: model.Entry | None = None
        self.savepoints: dict[str, Snapshot] = {}
        self.taken: dict[str, int] = {}
        self.output = Output(outside)
        self.watch: list[Callable[[model.Entry], None]] = []
        self._store = store
        self._snapshots: dict[str, Snapshot] = {}
        store.watch.append(self._on_change)

    def find(self, path: str) -> Snapshot | None:
        """A savepoint by its path."""
        return self.savepoints.get(path)

    def told(self, entry: Entry) -> model.Entry:
        """An entry in those words."""
        attempt, hold, end = entry.attempt, entry.hold, entry.end
        return model.Entry(
            seq=entry.seq,
            kind=entry.kind.value,
            request_id=entry.request_id,
            attempt=attempt.number,
            revision=attempt.revision,
            parallelism=attempt.parallelism,
            next_checkpoint=attempt.next_checkpoint,
            restored_from=self._snapshot(attempt.restored_from),
            retained=tuple(self._certain(ref) for ref in entry.retained),
            hold=None
            if hold is None
            else model.Hold(self._certain(hold.from_), hold.after, hold.stable),
            end=None
            if end is None
            else model.End(
                model.EndKind(end.kind.value.capitalize()),
                self._snapshot(end.go_on_from),
                committed=end.committed,
                savepoint=None
                if end.savepoint is None
                else f"{SAVEPOINTS}/{end.savepoint}".rstrip("/"),
                deletes=end.kind is EndKind.CANCELLED and end.go_on_from is None,
            ),
            restore_id=entry.settings.get(RESTORE_ID),
        )

    def _on_change(self, what: str, path: str) -> None:
        if what == "put" and paths.log_seq(path) is not None:
            self._on_entry(Entry.from_bytes(self._store.objects[path], path=path))
        elif path.startswith(SAVEPOINTS) and path.endswith(f"/{paths.METADATA}"):
            self._on_savepoint(what, path)

    def _on_entry(self, entry: Entry) -> None:
        if self.newest is not None and entry.seq <= self.newest.seq:
            return
        self.newest = told = self.told(entry)
        point = self._snapshot(log.recovery_point(entry))
        assert told.point == point, f"the model goes on from {told.point}, the log from {point}"
        for watch in self.watch:
            watch(told)

    def _on_savepoint(self, what: str, path: str) -> None:
        folder = path.removesuffix(f"/{paths.METADATA}")
        if what == "delete":
            self.savepoints.pop(folder, None)
            return
        data = self._store.objects[path]
        id = Manifest.from_bytes(data, path=path).checkpoint
        self.savepoints[folder] = self._certain(
            SnapshotRef(id, path, hashlib.sha256(data).hexdigest())
        )
        self.taken[folder] = self.taken.get(folder, 0) + 1

    def _snapshot(self, ref: SnapshotRef | None) -> Snapshot | None:
        return None if ref is None else self._certain(ref)

    def _certain(self, ref: SnapshotRef) -> Snapshot:
        if ref.digest not in self._snapshots:
            manifest = Manifest.from_bytes(self._store.objects[ref.path], path=ref.path)
            types = tuple(state.schema for state in manifest.operators[COUNTS].states)
            path = ref.path if "://" in ref.path else f"{CHECKPOINTS}/{ref.path}"
            self._snapshots[ref.digest] = Snapshot(
                ref.id,
                path.removesuffix(f"/{paths.METADATA}"),
                sum(job.offsets_of(manifest).values()),
                schema_of(types),
            )
        return self._snapshots[ref.digest]
