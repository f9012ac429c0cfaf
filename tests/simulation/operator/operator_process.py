"""The operator's process: observe, decide, write the status, do one effect after the other. It can be
killed before each of these, and the API server may refuse a write or keep its answer to itself.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Generator
from datetime import datetime
from typing import assert_never

from tests.simulation.operator import cluster as k8s
from tests.simulation.operator.cluster import JOB, NAMESPACE, Cluster, Conflict, NotThere
from tests.simulation.operator.intentions import check_intention
from tests.simulation.operator.store import Violation

from penstock.core.errors import Outdated, Rejected, Retryable
from penstock.spec.orders import Order, RefusalKind
from penstock_operator.manifests import names
from penstock_operator.reconcile import effects as do
from penstock_operator.reconcile.effects import Decision, Effect
from penstock_operator.reconcile.observed import (
    Claim,
    JobObject,
    Observed,
    Refusal,
    Report,
    Revision,
    SavepointObject,
    Workload,
)
from penstock_operator.resources.names import FINALIZER_SAVEPOINT, FINALIZER_STREAMJOB
from penstock_operator.resources.status import StreamJobStatus

TURNS_A_MINUTE_MAX = 70
WRITES_A_MINUTE_MAX = 45
_REFUSALS_KEPT_S = 300


class OperatorProcess:
    """One process at a time. `faults` is the share of writes that fail or whose answer is lost."""

    def __init__(
        self,
        cluster: Cluster,
        rng: random.Random,
        reconcile: Callable[[Observed, datetime], Decision],
    ) -> None:
        self.cluster = cluster
        self.rng = rng
        self.reconcile = reconcile
        self.faults = 0.0
        self.counts: Counter[str] = Counter()
        self._turn: Generator[None, None, None] | None = None
        self._due = 0
        self._now = 0
        self._failures = 0
        self._seen_changes = -1
        self._refusals: dict[str, tuple[int, Refusal]] = {}
        self._turns: deque[int] = deque()
        self._writes: deque[int] = deque()

    def kill(self) -> None:
        """All that it knows is lost; another begins."""
        self.cluster.note("the operator is killed")
        self._turn = None
        self._refusals.clear()
        self._failures = 0
        self._due = self._now + self.rng.randrange(1, 20)
        self._seen_changes = -1

    def tick(self) -> None:
        """A second begins."""
        self._now += 1

    def step(self) -> None:
        """One step of the turn under way, or the first of one that is due."""
        if self._turn is None:
            is_stale = self.cluster.changes != self._seen_changes and self._failures == 0
            took_one = bool(self._turns) and self._turns[-1] == self._now
            if took_one or (self._now < self._due and not is_stale):
                return
            self._seen_changes = self.cluster.changes
            self._turn = self._take_turn()
        try:
            next(self._turn)
        except StopIteration:
            self._turn = None
        except Conflict:
            self._turn = None
            self._due = self._now
            self._seen_changes = -1
        except (Retryable, Rejected) as e:
            self.cluster.note(f"turn failed: {e.what}")
            self._turn = None
            self._failures += 1
            self._due = self._now + min(30, 2 ** (self._failures - 1))

    # ── a turn ──────────────────────────────────────────────────────────────────────────────────

    def _take_turn(self) -> Generator[None, None, None]:
        seen = self.observe()
        if seen is None:
            self._due = self._now + 10**9
            self._failures = 0
            return
        self.counts["turns"] += 1
        _count(self._turns, self._now, TURNS_A_MINUTE_MAX, "decisions")
        job = self.cluster.job
        assert job is not None, seen
        version = job.version
        decision = self.reconcile(seen, self.cluster.now)
        stored = seen.job.status
        yield
        if decision.status != seen.job.status:
            self._write_status(seen, decision, version)
            stored = decision.status
            yield
        for effect in decision.effects:
            if self.cluster.job is None or self.cluster.job.uid != seen.job.uid:
                return
            self._carry_out(seen, effect, stored)
            yield
        self._failures = 0
        self._due = self._now + max(1, int(decision.look_again.total_seconds()))

    def observe(self) -> Observed | None:
        """Everything, fresh."""
        cluster = self.cluster
        job = cluster.job
        if job is None:
            return None
        spec, mistakes, revision = cluster.read(job.spec)
        savepoints = {s.name: _savepoint(s) for s in cluster.savepoints.values()}
        records = sorted(cluster.records.values(), key=lambda r: r.number)
        records = [r for r in records if r.owner == job.uid]
        leader = cluster.answering()
        reports = [p for p in cluster.of_role("check") if not p.is_deleting]
        return Observed(
            job=JobObject(
                uid=job.uid,
                namespace=NAMESPACE,
                name=JOB,
                generation=job.generation,
                annotations=dict(job.annotations),
                finalizers=tuple(sorted(job.finalizers)),
                spec=spec,
                revision=revision,
                mistakes=mistakes,
                status=job.status,
                deleted_at=job.deleted_at,
                is_namespace_terminating=cluster.is_namespace_terminating,
            ),
            revisions=tuple(
                Revision(r.revision, r.name, r.number, r.spec.image or "", r.digests)
                for r in records
            ),
            coordinator_workload=_workload(cluster.deployment),
            worker_workload=_workload(cluster.stateful_set),
            coordinator_pods=tuple(p.seen() for p in cluster.of_role("coordinator")),
            worker_pods=tuple(p.seen() for p in cluster.of_role("worker")),
            claims=tuple(
                Claim(c.name, c.ordinal, c.is_deleting) for _, c in sorted(cluster.claims.items())
            ),
            coordinator=leader.status() if leader else None,
            unreachable=None if leader else "no pod of the coordinator runs",
            check=_newest([p.report() for p in reports], revision),
            disposals=tuple(p.report() for p in cluster.of_role("disposal") if not p.is_deleting),
            savepoints=tuple(s for s in savepoints.values() if s.spec.job_name == JOB),
            accepted=records[-1].spec if records else None,
            restore_savepoint=savepoints.get(spec.restore.from_) if spec else None,
            selector="penstock.dev/job=job,penstock.dev/role=worker",
            refusals={
                id: refusal
                for id, (at, refusal) in self._refusals.items()
                if self._now - at <= _REFUSALS_KEPT_S
            },
        )

    def _write_status(self, seen: Observed, decision: Decision, version: int) -> None:
        self._maybe_fail("the status")
        job = self.cluster.job
        if job is None or job.uid != seen.job.uid or job.version != version:
            raise Conflict("the StreamJob has gone on")
        _count(self._writes, self._now, WRITES_A_MINUTE_MAX, "status writes")
        self.counts["writes"] += 1
        job.status = decision.status
        job.version += 1
        self.cluster.changed()
        move = job.status.move
        about = f"{move.kind} {move.step} {move.tries}" if move else "no move"
        self.cluster.note(f"status: {job.status.phase}, {about}")
        self._maybe_lose("the status")

    def _maybe_fail(self, what: str) -> None:
        if self.rng.random() < self.faults:
            raise Retryable(f"{what} was not taken")

    def _maybe_lose(self, what: str) -> None:
        if self.rng.random() < self.faults:
            raise Retryable(f"no answer to {what}")

    # ── effects ─────────────────────────────────────────────────────────────────────────────────

    def _carry_out(self, seen: Observed, effect: Effect, stored: StreamJobStatus) -> None:
        """`stored` is the status that the API server last had from this turn, or gave it."""
        cluster = self.cluster
        job = cluster.job
        assert job is not None, effect
        self.counts[type(effect).__name__] += 1
        if not isinstance(effect, do.Announce | do.EnsureShared):
            check_intention(cluster, job, stored, effect)
        self._maybe_fail(type(effect).__name__)
        self._do(seen, job, effect)
        self._maybe_lose(type(effect).__name__)

    def _do(self, seen: Observed, job: k8s.StreamJobObject, effect: Effect) -> None:
        cluster = self.cluster
        match effect:
            case do.SetFinalizer(present=present):
                if present is not (FINALIZER_STREAMJOB in job.finalizers):
                    (job.finalizers.add if present else job.finalizers.discard)(FINALIZER_STREAMJOB)
                    job.version += 1
                    cluster.changed()
                if job.deleted_at is not None and not job.finalizers:
                    cluster.note("the StreamJob is gone")
                    cluster.job = None
            case do.RecordRevision(revision=revision, number=number):
                if seen.job.spec is None or seen.job.revision != revision:
                    raise NotThere(f"{revision} is not the one that the spec asks for")
                cluster.record(seen.job.spec, revision, number)
            case do.ForgetRevision(name=name):
                found = [r for r in cluster.records.values() if r.name == name]
                for record in found:
                    self._check_forgotten(record.revision)
                    del cluster.records[record.revision]
                    cluster.shared.discard(record.revision)
            case do.RecordDigests(name=name, digests=digests):
                for record in cluster.records.values():
                    record.digests = dict(digests) if record.name == name else record.digests
            case do.EnsureShared(revision=revision):
                self._recorded(revision)
                self._may_create()
                cluster.shared.add(revision)
            case do.EnsureCoordinator(revision=revision):
                self._recorded(revision)
                cluster.deployment = self._workload(job, cluster.deployment, revision, 1)
            case do.EnsureWorkers(revision=revision, replicas=replicas):
                self._recorded(revision)
                cluster.stateful_set = self._workload(job, cluster.stateful_set, revision, replicas)
            case do.RemoveCoordinator():
                cluster.deployment = None
                cluster.changed()
            case do.DeletePods(pods=pods, force=force):
                for name, uid in pods:
                    cluster.delete_pod(name, uid, force=force)
            case do.DeleteClaims(names=claims):
                for claim in cluster.claims.values():
                    claim.is_deleting |= claim.name in claims
                cluster.changed()
            case do.RunCheck(revision=revision, against=against):
                name = names.check(JOB, revision)
                self._run(name, "check", revision, purpose=revision, against=against)
            case do.RunDisposal(revision=revision, path=path):
                purpose = names.ALL_CHECKPOINTS if path is None else path
                self._run(names.disposal(JOB, path), "disposal", revision, purpose=purpose)
            case do.Send(order=order):
                self._send(order)
            case do.CreateSavepoint():
                self._create_savepoint(effect)
            case do.WriteSavepointStatus(name=name, status=status):
                if (savepoint := cluster.savepoints.get(name)) and savepoint.status != status:
                    savepoint.status = status
                    cluster.changed()
            case do.SetSavepointFinalizer(name=name, present=present):
                self._set_savepoint_finalizer(name, present=present)
            case do.Announce(reason=reason, message=message):
                cluster.events.append(reason)
                cluster.note(f"event {reason}: {message}")
            case _:
                assert_never(effect)

    def _may_create(self) -> None:
        if self.cluster.is_namespace_terminating:
            raise Rejected("the namespace is being terminated", where=NAMESPACE, fix="nothing")

    def _recorded(self, revision: str) -> None:
        if revision not in self.cluster.records:
            raise NotThere(f"revision {revision} is not kept")

    def _check_forgotten(self, revision: str) -> None:
        job = self.cluster.job
        assert job is not None, revision
        in_use = {job.status.revision, job.status.stable_revision}
        in_use |= {w.revision for w in (self.cluster.deployment, self.cluster.stateful_set) if w}
        if revision in in_use:
            raise Violation(f"revision {revision} is forgotten, and still needed")

    def _workload(
        self,
        job: k8s.StreamJobObject,
        live: k8s.WorkloadObject | None,
        revision: str,
        replicas: int,
    ) -> k8s.WorkloadObject:
        if live is not None and live.owner == job.uid:
            if (live.revision, live.replicas) != (revision, replicas):
                live.revision, live.replicas = revision, replicas
                self.cluster.note(f"workload of {revision} with {replicas}")
                self.cluster.changed()
            return live
        if live is not None:
            raise NotThere("an object of that name belongs to another")
        self._may_create()
        self.cluster.note(f"workload of {revision} with {replicas}")
        self.cluster.changed()
        return k8s.WorkloadObject(self.cluster.uid("workload"), revision, replicas, job.uid)

    def _run(
        self, name: str, role: str, revision: str, *, purpose: str, against: str | None = None
    ) -> None:
        self._recorded(revision)
        self.cluster.shared.add(revision)
        live = self.cluster.pods.get(name)
        if live is None:
            self._may_create()
            self.cluster.create_pod(name, role, revision, purpose=purpose, against=against)
        elif live.against != against:
            self.cluster.delete_pod(name, live.uid)

    def _send(self, order: Order) -> None:
        leader = self.cluster.answering()
        if leader is None:
            return
        try:
            leader.order(order)
        except Outdated as e:
            self._refusals[order.request_id] = self._now, Refusal(RefusalKind.OUTDATED, e.what)
        except Retryable:
            pass
        else:
            self._refusals.pop(order.request_id, None)

    def _create_savepoint(self, effect: do.CreateSavepoint) -> None:
        cluster = self.cluster
        found = cluster.savepoints.get(effect.name)
        if found is None:
            self._may_create()
            found = cluster.savepoints[effect.name] = k8s.SavepointObject(
                effect.name,
                cluster.uid("savepoint"),
                effect.spec,
                dict(effect.annotations),
                cluster.now,
            )
            cluster.changed()
        if effect.status is not None and found.status.phase == "Pending":
            found.status = effect.status
            cluster.changed()

    def _set_savepoint_finalizer(self, name: str, *, present: bool) -> None:
        cluster = self.cluster
        found = cluster.savepoints.get(name)
        if found is None:
            return
        (found.finalizers.add if present else found.finalizers.discard)(FINALIZER_SAVEPOINT)
        cluster.changed()
        if found.deleted_at is not None and not found.finalizers:
            del cluster.savepoints[name]


def _savepoint(s: k8s.SavepointObject) -> SavepointObject:
    return SavepointObject(
        name=s.name,
        uid=s.uid,
        spec=s.spec,
        status=s.status,
        annotations=dict(s.annotations),
        finalizers=tuple(s.finalizers),
        created_at=s.created_at,
        deleted_at=s.deleted_at,
    )


def _workload(live: k8s.WorkloadObject | None) -> Workload | None:
    return Workload(live.uid, live.revision, live.replicas) if live else None


def _newest(reports: list[Report], purpose: str | None) -> Report | None:
    return max(reports, key=lambda r: (r.purpose == purpose, r.created_at), default=None)


def _count(times: deque[int], now: int, most: int, what: str) -> None:
    times.append(now)
    while times and now - times[0] >= 60:
        times.popleft()
    if len(times) > most:
        raise Violation(f"{len(times)} {what} within a minute")
