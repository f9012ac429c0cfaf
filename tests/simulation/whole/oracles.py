"""What must be true of the data, whoever died and whatever was asked: the job simulator's oracles, and at
every entry of the log the count of all that sinks show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from penstock.checkpoint import log, retention
from penstock.core import paths
from penstock.core.log import Entry, EntryKind, SnapshotRef
from penstock.testing.simulation import job
from penstock.testing.simulation.job import JOB, SINKS, Input, Record
from penstock.testing.simulation.oracles import GRACE_MS, Oracles, has_dropped_all
from penstock.testing.simulation.outside import Outside, Transaction, Violation
from penstock.testing.simulation.store import SAVEPOINTS, SimulatedStore
from penstock.testing.simulation.world import World


class JobOracles(Oracles):
    """`allows_rewind` says whether a person wanted to go back, so that output is written again."""

    def __init__(
        self, world: World, store: SimulatedStore, outside: Outside, input_: Input
    ) -> None:
        super().__init__(world, store, outside, input_)
        self.allows_rewind: Callable[[Entry], bool] = lambda _: False
        self.rewinds = 0

    def _on_entry(self, entry: Entry) -> None:
        is_new = self.newest is None or entry.seq > self.newest.seq
        if is_new and entry.kind is EntryKind.OPENED and self.allows_rewind(entry):
            self._rewind(entry)
        super()._on_entry(entry)
        if is_new:
            self.check_output()

    def _may_leave_hold(self, entry: Entry) -> bool:
        return self.allows_rewind(entry)

    def check_output(self) -> None:
        """Every record that the recovery point has read is shown once, or waits for a commit there."""
        entry = self.newest
        assert entry is not None, "no log"
        point = log.recovery_point(entry)
        if has_dropped_all(entry):
            return
        wanted = Counter(self._prefix(point))
        waiting = {t.name for t in self._named(point) if t.state == "pending"}
        for sink in SINKS:
            shown = Counter(self._outside.visible(sink))
            for name in waiting:
                transaction = self._outside.transactions[name]
                if transaction.sink == sink:
                    shown.update(transaction.records)
            if missing := wanted - shown:
                raise Violation(f"{sink} has lost {min(missing)}, entry {entry.seq}")
            if more := shown - wanted:
                raise Violation(f"{sink} shows {min(more)} once more, entry {entry.seq}")

    def check_store(self, *, is_tidy: bool) -> None:
        """At rest. `is_tidy`: at some moment of it the store held what is named and nothing else, or
        something had failed that may leave files to the sweep."""
        entry = self.newest
        if not is_tidy:
            raise Violation(f"nothing failed, and {self.unnamed()[0]} is left over")
        if entry is None or entry.end is None or not entry.end.committed:
            return
        swept = retention.sweep(
            self._store.listing(f"{JOB}/"),
            entry,
            {ref.path: self.manifest(ref) for ref in log.kept(entry)},
            job=JOB,
            now_ms=self._world.now_ms,
            grace_ms=GRACE_MS,
        )
        if swept.live or swept.young:
            raise Violation(f"a job that has ended still has {swept.live + swept.young}")

    def unnamed(self) -> list[str]:
        """Files that no snapshot of the log and no savepoint names."""
        entry = self.newest
        if entry is None:
            return []
        named = {paths.log_entry(JOB, seq) for seq in range(entry.seq + 1)}
        for ref in log.kept(entry):
            named |= {ref.path} | self._files(ref)
        found = []
        for path in sorted(self._store.objects):
            if path in named:
                continue
            folder = path.rpartition("/")[0]
            is_savepoint = f"{folder}/{paths.METADATA}" in self._store.objects
            if not (path.startswith(SAVEPOINTS) and is_savepoint):
                found.append(path)
        return found

    def _prefix(self, point: SnapshotRef | None) -> list[Record]:
        offsets = job.offsets_of(self.manifest(point)) if point else {}
        return self._input.prefix(offsets)

    def _named(self, point: SnapshotRef | None) -> Iterator[Transaction]:
        names = job.pending_of(self.manifest(point)) if point else []
        return (self._outside.transactions[name] for name, _ in names)

    def _rewind(self, entry: Entry) -> None:
        """What was written since counts no more, and what is missing counts as written: somebody knew."""
        point = entry.attempt.restored_from
        for transaction in self._named(point):
            if transaction.state == "aborted":
                transaction.state = "committed"
        waiting = {t.name for t in self._named(point) if t.state == "pending"}
        prefix = self._prefix(point)
        for sink in SINKS:
            left = Counter(prefix)
            for name in waiting:
                if self._outside.transactions[name].sink == sink:
                    left.subtract(self._outside.transactions[name].records)
            for transaction in self._outside.transactions.values():
                if transaction.sink == sink and transaction.state == "committed":
                    kept = tuple(r for r in transaction.records if left[r] > 0)
                    left.subtract(kept)
                    is_cut = kept != transaction.records
                    self.rewinds += is_cut
                    transaction.records = kept
            missing = tuple(sorted((+left).elements()))
            if missing:
                self._outside.transactions[f"known gap {sink} {entry.seq}"] = Transaction(
                    f"known gap {sink} {entry.seq}", sink, 0, 0, missing, "committed"
                )
