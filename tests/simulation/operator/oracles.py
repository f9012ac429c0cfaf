"""What must be true: at every moment, and when all has come to rest."""

from __future__ import annotations

from tests.simulation.operator.cluster import Cluster, StreamJobObject
from tests.simulation.operator.code import INCOMPATIBLE, Code
from tests.simulation.operator.operator_process import OperatorProcess
from tests.simulation.operator.person import Person
from tests.simulation.operator.store import EndKind, Entry, Snapshot, Violation

from penstock.spec.orders import JobPhase
from penstock.spec.streamjob import DesiredState, StreamJobSpec
from penstock_operator.reconcile.turn import savepoint_name
from penstock_operator.resources.names import ANNOTATION_SAVEPOINT
from penstock_operator.resources.status import MoveKind, Phase, SavepointPhase, Step

TURNS_AT_REST_MAX = 14
TURNS_WHEN_STUCK_MAX = 75
WRITES_AT_REST_MAX = 5
WRITES_WHEN_STUCK_MAX = 15


class Oracles:
    """Watches one run; raises Violation."""

    def __init__(
        self,
        cluster: Cluster,
        person: Person,
        operator: OperatorProcess,
        input_length: int | None,
    ) -> None:
        self._cluster = cluster
        self._person = person
        self._operator = operator
        self._input_length = input_length
        self._stops: set[str] = set()
        self._at_rest_began: tuple[int, int, int] = (0, 0, 0)

    # ── at every moment ─────────────────────────────────────────────────────────────────────────

    def on_entry(self, entry: Entry) -> None:
        """The log went on."""
        if entry.kind == "opened" and self._cluster.job is not None:
            self._cluster.opened = self._cluster.job.uid, self._cluster.now
        if entry.end is not None and entry.end.savepoint is not None:
            self._stops.add(entry.end.savepoint)
        if entry.end is not None and entry.end.committed and entry.point is not None:
            limit = entry.hold.after if entry.hold else entry.point.id
            left = self._cluster.store.output.left(entry.point.pending)
            if any(t.checkpoint <= limit for t in left):
                raise Violation(f"the end is told as committed, {left[0]} is not")

    def check_now(self) -> None:
        """What holds at any time."""
        store, job = self._cluster.store, self._cluster.job
        asked = len(self._person.requests)
        made = len(store.taken.keys() - self._stops)
        if made > asked:
            raise Violation(f"{made} savepoints for {asked} requests")
        gone = store.taken.keys() - store.savepoints.keys() - self._person.disposed
        if gone:
            raise Violation(f"{min(gone)} was deleted, nobody asked for that")
        if job is None or job.status.move is None:
            return
        named = job.status.move.snapshot
        is_savepoint = named is not None and "/savepoint-" in named
        if is_savepoint and named not in store.savepoints and named not in self._person.disposed:
            raise Violation(f"the move counts on {named}, which is gone")

    # ── at rest ─────────────────────────────────────────────────────────────────────────────────

    def unrest(self, wish: str) -> str:
        """Why things are not yet as they should be; empty when they are."""
        job = self._cluster.job
        if wish in ("delete", "namespace"):
            left = list(self._cluster.leftovers())
            return f"left: {left[:3]}" if job is not None or left else ""
        if job is None:
            return "there is no StreamJob"
        spec, _, revision = self._cluster.read(job.spec)
        assert spec is not None, job.spec
        assert revision is not None, job.spec
        status = job.status
        if status.observed_generation != job.generation:
            return f"generation {status.observed_generation} of {job.generation} was looked at"
        if self._waits_for_a_person(job, spec, revision):
            return ""
        move = status.move
        if move is not None:
            return f"{move.kind} {move.step}: {move.reason}"
        entry = self._cluster.store.newest
        why = self._savepoints(job, entry)
        if why:
            return why
        if entry is not None and entry.end is not None and entry.end.kind is EndKind.FINISHED:
            return self._finished(job, entry, spec)
        if spec.desired_state is DesiredState.SUSPENDED:
            return self._suspended(job, entry)
        return self._running(job, entry, spec, revision)

    def _waits_for_a_person(self, job: StreamJobObject, spec: StreamJobSpec, revision: str) -> bool:
        """Whether nothing can be done about what is wanted, and everybody is told."""
        if not self._is("Stalled", "True") or spec.desired_state is DesiredState.SUSPENDED:
            return False
        if spec.restore.from_ not in self._known_snapshots():
            return self._is("SpecValid", "False") or self._is("Ready", "False")
        code, move, entry = Code(spec.image or ""), job.status.move, self._cluster.store.newest
        if move is not None and (move.kind, move.step) == (MoveKind.UPGRADE, Step.CHECKING):
            return not code.can_be_pulled
        if not code.reads(self._named(spec.restore.from_)):
            return self._is("Ready", "False")
        has_another = job.status.stable_revision not in (None, revision)
        cannot_run = not code.is_good or (entry is not None and not code.reads(entry.point))
        return cannot_run and not has_another and self._is("Ready", "False")

    def _named(self, place: str) -> Snapshot | None:
        """The savepoint at a path, or that a Savepoint has."""
        cluster = self._cluster
        named = cluster.savepoints.get(place)
        path = named.status.path if named is not None else place
        return cluster.store.savepoints.get(path or "")

    def _known_snapshots(self) -> set[str]:
        """What may stand in `restore.from`."""
        return {"Latest", *self._cluster.savepoints, *self._cluster.store.savepoints}

    def _running(
        self, job: StreamJobObject, entry: Entry | None, spec: StreamJobSpec, revision: str
    ) -> str:
        cluster, status = self._cluster, job.status
        code = Code(spec.image or "")
        if entry is None:
            return "nothing ever ran"
        is_wanted = entry.revision == revision
        if not is_wanted:
            is_possible = code.is_good and code.reads(entry.point)
            if is_possible and status.failed_revision != revision:
                return f"{entry.revision} runs, {revision} is wanted"
            if not self._is("Stalled", "True") and not self._is("StateCompatible", "False"):
                return f"{entry.revision} runs, {revision} is wanted, and nobody is told why"
        elif not code.is_good and code.kind != INCOMPATIBLE:
            return f"{code.image} runs"
        running = entry.revision
        leader = cluster.answering()
        told = leader.status() if leader else None
        if told is None or told.phase is not JobPhase.RUNNING:
            return f"the job is {told and told.phase}"
        if entry.hold is not None:
            return "commits are held"
        if entry.parallelism != spec.parallelism:
            return f"parallelism {entry.parallelism}, {spec.parallelism} is wanted"
        if status.parallelism != spec.parallelism or status.phase is not Phase.RUNNING:
            return f"status tells {status.phase} at {status.parallelism}"
        pods = {p.ordinal: p.revision for p in cluster.of_role("worker")}
        if pods != dict.fromkeys(range(spec.parallelism), running):
            return f"workers {pods}, {running} runs"
        workload = cluster.stateful_set
        if workload is None or (workload.revision, workload.replicas) != (running, len(pods)):
            return f"the StatefulSet is {workload}"
        if [p.revision for p in cluster.of_role("coordinator")] != [running]:
            return "coordinators of another revision"
        if status.revision != running:
            return f"status tells revision {status.revision}, {running} runs"
        if spec.worker.volume.when_scaled_down == "Delete":
            extra = [c.name for c in cluster.claims.values() if c.ordinal >= spec.parallelism]
            if extra:
                return f"volumes stay: {extra}"
        if not self._is("Ready", "True") or not self._is("Reconciling", "False"):
            return f"conditions {self._conditions()}"
        if is_wanted and self._is("Stalled", "True"):
            return f"conditions {self._conditions()}"
        return ""

    def _suspended(self, job: StreamJobObject, entry: Entry | None) -> str:
        if job.status.phase is not Phase.SUSPENDED:
            return f"phase {job.status.phase}"
        is_open = entry is not None and (entry.end is None or not entry.end.committed)
        opened = self._cluster.opened
        is_ours = opened and opened[0] == job.uid and not self._cluster.was_taken_apart
        if is_open and is_ours:  # what a deleted one left without an end waits for a start
            return "the run did not end"
        if self._cluster.of_role("worker") or self._cluster.of_role("coordinator"):
            return "pods are left"
        return "" if self._is("Ready", "True") else f"conditions {self._conditions()}"

    def _finished(self, job: StreamJobObject, entry: Entry, spec: StreamJobSpec) -> str:
        if entry.end is not None and not entry.end.committed:
            return "the end is not committed"
        if self._cluster.store.output.stop != self._input_length:
            raise Violation(
                f"finished at {self._cluster.store.output.stop} of {self._input_length}"
            )
        wanted = {Phase.FINISHED}
        if spec.desired_state is DesiredState.SUSPENDED:
            wanted.add(Phase.SUSPENDED)
        if job.status.phase not in wanted:
            return f"phase {job.status.phase}, it has finished"
        return "workers are left" if self._cluster.of_role("worker") else ""

    def _savepoints(self, job: StreamJobObject, entry: Entry | None) -> str:
        runs = entry is not None and entry.end is None
        for savepoint in self._cluster.savepoints.values():
            phase = savepoint.status.phase
            if savepoint.deleted_at is not None:
                return f"{savepoint.name} is on its way out"
            if runs and phase in (SavepointPhase.PENDING, SavepointPhase.RUNNING):
                return f"{savepoint.name} is {phase}"
            path = savepoint.status.path
            if phase is SavepointPhase.COMPLETED and path not in self._cluster.store.savepoints:
                raise Violation(f"{savepoint.name} names {path}, which is gone")
        asked = job.annotations.get(ANNOTATION_SAVEPOINT)
        if asked is None or not runs:
            return ""
        receipt = job.status.requests.get("savepoint")
        if receipt is None or receipt.id != asked or receipt.phase not in ("Done", "Failed"):
            return f"asked for savepoint {asked}, told {receipt}"
        name = savepoint_name("job", f"{job.uid}/{asked}")
        known = self._cluster.store.savepoints.keys() | self._person.disposed
        if receipt.phase == "Done" and receipt.path not in known:
            raise Violation(f"the receipt for {name} names {receipt.path}, which is gone")
        return ""

    def rest_began(self) -> None:
        """From here on nothing is to be done."""
        self._at_rest_began = (
            self._operator.counts["turns"],
            self._operator.counts["writes"],
            self._cluster.store.output.stop,
        )

    def check_rest(self, seconds: int) -> None:
        """After so long without unrest."""
        turns, writes, stop = self._at_rest_began
        counts = self._operator.counts
        job = self._cluster.job
        is_stuck = job is not None and job.status.move is not None
        if counts["turns"] - turns > (TURNS_WHEN_STUCK_MAX if is_stuck else TURNS_AT_REST_MAX):
            raise Violation(
                f"{counts['turns'] - turns} decisions in {seconds} s, with nothing to do"
            )
        if counts["writes"] - writes > (WRITES_WHEN_STUCK_MAX if is_stuck else WRITES_AT_REST_MAX):
            raise Violation(f"{counts['writes'] - writes} status writes in {seconds} s at rest")
        entry = self._cluster.store.newest
        if entry is None or job is None:
            return
        runs = job.status.phase is Phase.RUNNING
        if entry.end is None and runs and self._is("Ready", "True"):
            if self._cluster.store.output.stop <= stop:
                raise Violation(f"Ready, and nothing was written for {seconds} s")
            return
        is_exact = entry.point is None or stop == entry.point.position
        is_over = entry.end is not None and entry.end.committed and entry.hold is None
        if is_over and not is_exact:
            raise Violation(f"ended at {entry.point}, written to {stop}")

    # ── small things ────────────────────────────────────────────────────────────────────────────

    def _is(self, type: str, status: str) -> bool:
        job = self._cluster.job
        assert job is not None, type
        return any(c.type == type and c.status == status for c in job.status.conditions)

    def _conditions(self) -> list[tuple[str, str, str]]:
        job = self._cluster.job
        assert job is not None, self
        return [(c.type, c.status, c.reason) for c in job.status.conditions]
