"""What must be true, checked at every entry of the log, every deletion and every commit."""

from __future__ import annotations

import hashlib

from penstock.checkpoint import log, restore, retention
from penstock.checkpoint.rescaling import Outcome, rescale_of
from penstock.core import paths
from penstock.core.log import EndKind, Entry, Hold, SnapshotRef
from penstock.core.manifest import Manifest
from penstock.core.snapshots import KeyedSource
from penstock.testing.simulation import job
from penstock.testing.simulation.job import COUNTS, GRAPH, JOB, SINKS, Groups, Input
from penstock.testing.simulation.outside import Outside, Transaction, Violation
from penstock.testing.simulation.store import SAVEPOINTS, SimulatedStore
from penstock.testing.simulation.world import World

GRACE_MS = 10_000


class Oracles:
    """Watches the store and the world outside; raises Violation."""

    def __init__(
        self, world: World, store: SimulatedStore, outside: Outside, input_: Input
    ) -> None:
        self._world = world
        self._store = store
        self._outside = outside
        self._input = input_
        self.newest: Entry | None = None
        self.former_hold: Hold | None = None
        self._lineage: set[str] = set()
        self._rescaled: set[str] = set()
        self._disposed: set[str] = set()
        self._checked: set[str] = set()
        self._manifests: dict[str, Manifest] = {}
        store.watch.append(self._on_change)
        outside.on_commit = self._on_commit

    # ── as it happens ───────────────────────────────────────────────────────────────────────────

    def _on_change(self, what: str, path: str) -> None:
        if what == "put" and paths.log_seq(path) is not None:
            self._on_entry(Entry.from_bytes(self._store.objects[path], path=path))
        elif what == "put" and path.startswith(SAVEPOINTS) and path.endswith(paths.METADATA):
            self._check_savepoint(path)
        elif what == "delete" and self.newest is not None:
            if path.startswith(SAVEPOINTS) and path.endswith(paths.METADATA):
                self._disposed.add(path)
            if path == paths.log_entry(JOB, self.newest.seq):
                raise Violation("the newest entry of the log was deleted")
            for ref in log.kept(self.newest):
                if path == ref.path or path in self._files(ref):
                    raise Violation(f"{path} was deleted, and {ref.path} still needs it")

    def _on_entry(self, entry: Entry) -> None:
        if self.newest is not None and entry.seq <= self.newest.seq:
            return  # a number that had been trimmed: its writer will see the newer ones
        if self.newest is not None and entry.seq != self.newest.seq + 1:
            raise Violation(f"entry {entry.seq} follows {self.newest.seq}")
        if self.newest is not None and self.newest.hold is not None:
            self.former_hold = self.newest.hold
            is_other = entry.attempt.revision != self.newest.attempt.revision
            goes_back = entry.attempt.restored_from == self.former_hold.from_
            if is_other and not goes_back and not self._may_leave_hold(entry):
                raise Violation("another revision goes on from what a hold withholds")
        self.newest = entry
        self._lineage.add(entry.nonce)
        self._world.note(
            f"log: {entry.seq} {entry.kind} attempt {entry.attempt.number} "
            f"at {entry.attempt.parallelism}" + (" in a hold" if entry.hold else "")
        )
        self._check_rescale(entry)
        for ref in log.kept(entry):
            self._check_whole(ref)
        point = log.recovery_point(entry)
        if point is not None:
            self.check_state(point, self.manifest(point))
        if not has_dropped_all(entry):
            self._check_nothing_past(point, "the recovery point")
        if entry.end is not None and entry.end.committed and point is not None:
            after = entry.hold.after if entry.hold else point.id
            for name, checkpoint in job.pending_of(self.manifest(point)):
                if checkpoint <= after and self._outside.transactions[name].state != "committed":
                    raise Violation(f"the end is told as committed, {name} is not")

    def _may_leave_hold(self, entry: Entry) -> bool:
        """Whether somebody wanted it so."""
        return False

    def _on_commit(self, transaction: Transaction) -> None:
        assert self.newest is not None, transaction
        point = log.recovery_point(self.newest)
        self._check_covered(transaction, point, "the recovery point")
        if self.newest.hold is not None and transaction.checkpoint > self.newest.hold.after:
            raise Violation(f"{transaction.name} is committed, and a hold withholds it")
        if self.newest.hold is not None:
            self._check_covered(transaction, self.newest.hold.from_, "what the hold goes back to")

    def check_rescaled(self, request_id: str) -> None:
        """Somebody is told that the job runs at another parallelism: the log says so, too."""
        if request_id not in self._rescaled:
            raise Violation(f"{request_id} is answered as done, and the log does not tell of it")

    def _check_rescale(self, entry: Entry) -> None:
        found = rescale_of(entry)
        if found is None:
            return
        if found.outcome is Outcome.DONE:
            self._rescaled.add(found.request_id)
        is_back = entry.end is not None or entry.attempt.parallelism == len(found.former)
        if found.outcome is Outcome.FAILED and not is_back:
            raise Violation(f"{found.request_id} failed, and the job does not run as before")

    def check_won(self, entry: Entry) -> None:
        """Somebody believes that this entry won: then it was the newest of the log once."""
        if entry.nonce not in self._lineage:
            raise Violation(f"entry {entry.seq} is believed to have won, and never was the newest")

    # ── the sentences ───────────────────────────────────────────────────────────────────────────

    def check_state(self, ref: SnapshotRef, manifest: Manifest) -> None:
        """Exactly-once state: keyed state is the replay of the prefix that the offsets name."""
        if ref.digest in self._checked:
            return
        self._checked.add(ref.digest)
        offsets = job.offsets_of(manifest)
        if set(offsets) != set(range(len(self._input.splits))):
            raise Violation(f"{ref.path} has the offsets of splits {sorted(offsets)}")
        wanted: Groups = {}
        job.count(wanted, self._input.prefix(offsets))
        sources = [
            KeyedSource(s.keyed, s.keyed.groups, restore.folder_of(ref, manifest))
            for s in manifest.operators[COUNTS].subtasks
            if s.keyed is not None
        ]
        found = self._load(sources)
        if found != wanted:
            raise Violation(f"the state in {ref.path} is not the replay of {offsets}: {found}")
        self._check_every_parallelism(ref, manifest, wanted)

    def _check_every_parallelism(
        self, ref: SnapshotRef, manifest: Manifest, wanted: Groups
    ) -> None:
        for parallelism in (1, 2, 3, 5):
            plan = restore.plan(
                manifest, GRAPH, parallelism=parallelism, folder=restore.folder_of(ref, manifest)
            )
            if self._load([k for part in plan[COUNTS].values() for k in part.keyed]) != wanted:
                raise Violation(f"{ref.path} restores to another state at {parallelism}")

    def _load(self, sources: list[KeyedSource]) -> Groups:
        found: Groups = {}
        for source in sources:
            for file in source.handle.files:
                path = file.path if "://" in file.path else source.folder + file.path
                for group, keys in job.decode_groups(self._store.objects[path]).items():
                    if group in source.groups:
                        if group in found:
                            raise Violation(f"key group {group} is restored twice")
                        found[group] = keys
        return found

    def _check_whole(self, ref: SnapshotRef) -> None:
        data = self._store.objects.get(ref.path)
        if data is None or hashlib.sha256(data).hexdigest() != ref.digest:
            raise Violation(f"the log names {ref.path}, whose manifest is missing or another")
        for path in self._files(ref):
            if path not in self._store.objects:
                raise Violation(f"{ref.path} needs {path}, which is gone")

    def _check_nothing_past(self, point: SnapshotRef | None, name: str) -> None:
        for transaction in self._outside.transactions.values():
            if transaction.state == "committed":
                self._check_covered(transaction, point, name)

    def _check_covered(
        self, transaction: Transaction, point: SnapshotRef | None, name: str
    ) -> None:
        offsets = job.offsets_of(self.manifest(point)) if point else {}
        past = [r for r in transaction.records if r.offset >= offsets.get(r.split, 0)]
        if past:
            raise Violation(
                f"{transaction.name} is committed, {name} does not cover {past[0]}: "
                "it will be written again"
            )

    def _check_savepoint(self, path: str) -> None:
        if path in self._disposed:
            return  # a put of its manifest that had hung: whoever restores it is told what is missing
        manifest = Manifest.from_bytes(self._store.objects[path], path=path)
        ref = SnapshotRef(
            manifest.checkpoint, path, hashlib.sha256(self._store.objects[path]).hexdigest()
        )
        for file in manifest.files():
            if "://" in file.path:
                raise Violation(f"savepoint {path} cannot be moved: it names {file.path}")
        self._check_whole(ref)
        self.check_state(ref, manifest)
        self._check_prefix_written(manifest, path)

    def _check_prefix_written(self, manifest: Manifest, name: str) -> None:
        pending = {transaction for transaction, _ in job.pending_of(manifest)}
        wanted = sorted(self._input.prefix(job.offsets_of(manifest)))
        for sink in SINKS:
            have = sorted(
                record
                for t in self._outside.transactions.values()
                if t.sink == sink and (t.name in pending or t.state == "committed")
                for record in t.records
                if t.state != "aborted"
            )
            missing = set(wanted) - set(have)
            if missing:
                raise Violation(f"{name} counts on records of {sink} that are lost: {min(missing)}")

    def manifest(self, ref: SnapshotRef) -> Manifest:
        """A manifest as it stands in the store."""
        data = self._store.objects.get(ref.path)
        if data is None:
            raise Violation(f"{ref.path} is gone")
        if ref.digest not in self._manifests:
            self._manifests[ref.digest] = Manifest.from_bytes(data, path=ref.path)
        return self._manifests[ref.digest]

    def _files(self, ref: SnapshotRef) -> set[str]:
        manifest = self.manifest(ref)
        folder = restore.folder_of(ref, manifest)
        return {f.path if "://" in f.path else folder + f.path for f in manifest.files()}

    # ── when all is quiet ───────────────────────────────────────────────────────────────────────

    def check_end(self, *, no_orphans: bool) -> None:
        """The output is the input, once; the store holds what is referenced and nothing else."""
        entry = self.newest
        assert entry is not None, "no log"
        wanted = sorted(self._input.records())
        for sink in SINKS:
            visible = self._outside.visible(sink)
            if has_dropped_all(entry):
                if len(set(visible)) != len(visible):
                    raise Violation(f"{sink} shows a record twice")
            elif visible != wanted:
                raise Violation(f"what {sink} shows is not every record once")
        swept = retention.sweep(
            self._store.listing(f"{JOB}/"),
            entry,
            {ref.path: self.manifest(ref) for ref in log.kept(entry)},
            job=JOB,
            now_ms=self._world.now_ms,
            grace_ms=GRACE_MS,
        )
        if swept.live or swept.young:
            raise Violation(f"a finished job still has {swept.live + swept.young}")
        if no_orphans and swept.orphans:
            raise Violation(f"nothing failed, and {swept.orphans[0].path} is left over")
        for path in self._store.objects:
            if path.startswith(SAVEPOINTS) and path.endswith(paths.METADATA):
                self._check_savepoint(path)


def has_dropped_all(entry: Entry) -> bool:
    """Whether the job was cancelled and its checkpoints deleted, as was asked for."""
    end = entry.end
    return end is not None and end.kind is EndKind.CANCELLED and end.go_on_from is None
