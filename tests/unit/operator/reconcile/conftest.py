"""A StreamJob's world in values: a cluster that does at once what it is told, and a coordinator that
answers. Tests change what is seen, and look at what is decided."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest

from penstock.spec.changes import revision_of
from penstock.spec.orders import (
    CancelOrder,
    CheckpointOrder,
    DisposeOrder,
    HoldStatus,
    JobPhase,
    JobStatus,
    Order,
    Origin,
    RefusalKind,
    RequestPhase,
    RequestStatus,
    RescaleOrder,
    RescaleStatus,
    SavepointOrder,
    SettingsOrder,
    SnapshotStatus,
    StartOrder,
    StopOrder,
    WorkerStatus,
    restore_id_of,
)
from penstock.spec.streamjob import StreamJobSpec
from penstock_operator.reconcile import effects as do
from penstock_operator.reconcile.effects import Decision, Effect
from penstock_operator.reconcile.job import reconcile
from penstock_operator.reconcile.observed import (
    Claim,
    JobObject,
    Observed,
    Pod,
    PodPhase,
    Report,
    Revision,
    SavepointObject,
    Workload,
)
from penstock_operator.resources.names import FINALIZER_SAVEPOINT, FINALIZER_STREAMJOB
from penstock_operator.resources.status import SavepointStatus, StreamJobStatus

START = datetime(2026, 8, 22, 12, 0, 0, tzinfo=UTC)
NAME, NAMESPACE, UID = "wordcount", "shop", "uid-1"
SAVEPOINTS = "s3://bucket/savepoints"
E = TypeVar("E")


def spec(**fields: Any) -> StreamJobSpec:
    """A spec in the manifest's own words."""
    written = {
        "image": "words:1",
        "entrypoint": "words:job",
        "parallelism": 2,
        "checkpoints": {"storage": "s3://bucket/checkpoints"},
    }
    return StreamJobSpec.model_validate(written | fields)


@dataclass
class Log:
    """What the object store knows of the job."""

    seq: int = 0
    attempt: int = 0
    parallelism: int = 0
    revision: str = ""
    end: JobPhase | None = None
    newest: int = 0
    next_restore: str | None = None
    restored_from: str | None = None
    restore_id: str | None = None
    hold: HoldStatus | None = None
    completed: int = 0
    request_id: str | None = None
    last_savepoint: SnapshotStatus | None = None
    rescale: RescaleStatus | None = None
    settings: dict[str, Any] = field(default_factory=dict)


class World:
    """The cluster, the store and the coordinator of one StreamJob, as obedient as can be.

    `broken` revisions never run: their attempts fail. Orders that it `refuses` it does with `refusal`.
    `turn` is one look of the operator.
    """

    def __init__(self) -> None:
        self.now = START
        self.spec: StreamJobSpec | None = spec()
        self.generation = 1
        self.mistakes: tuple[str, ...] = ()
        self.annotations: dict[str, str] = {}
        self.finalizers: set[str] = set()
        self.status = StreamJobStatus()
        self.deleted_at: datetime | None = None
        self.revisions: dict[str, tuple[int, StreamJobSpec]] = {}
        self.digests: dict[str, dict[str, tuple[str, ...]]] = {}
        self.image_digest: str | None = None
        self.coordinator: Workload | None = None
        self.workers: Workload | None = None
        self.pods: dict[str, Pod] = {}
        self.claims: set[int] = set()
        self.log = Log()
        self.requests: dict[str, RequestStatus] = {}
        self.phase = JobPhase.WAITING
        self.savepoints: dict[str, SavepointObject] = {}
        self.checks: dict[str, Report] = {}
        self.verdict: dict[str, Any] | None = {"fits": True}
        self.broken: set[str] = set()
        self.refuses: dict[type[Order], str] = {}
        self.refusal: RefusalKind | None = RefusalKind.REJECTED
        self.silent = False
        self.holds = True
        self.done: list[Effect] = []
        self.decision: Decision | None = None
        self.seen: dict[str, Any] = {}
        self._uids = 0
        self.uid = UID

    # ── what tests do ───────────────────────────────────────────────────────────────────────────

    def apply(self, **fields: Any) -> None:
        """Change the spec."""
        assert self.spec is not None
        before = self.spec.model_dump(mode="json", by_alias=True, exclude_unset=True)
        self.spec = StreamJobSpec.model_validate(before | fields)
        self.generation += 1

    @property
    def revision(self) -> str:
        assert self.spec is not None
        return revision_of(self.spec)

    def observed(self) -> Observed:
        newest = max(self.revisions.values(), default=None, key=lambda r: r[0])
        seen = Observed(
            job=JobObject(
                uid=self.uid,
                namespace=NAMESPACE,
                name=NAME,
                generation=self.generation,
                annotations=dict(self.annotations),
                finalizers=tuple(self.finalizers),
                spec=None if self.mistakes else self.spec,
                revision=None if self.mistakes or self.spec is None else self.revision,
                mistakes=self.mistakes,
                status=StreamJobStatus.model_validate_json(self.status.model_dump_json()),
                deleted_at=self.deleted_at,
            ),
            revisions=tuple(
                Revision(r, f"{NAME}-{r}", n, kept.image or "", self.digests.get(r, {}))
                for r, (n, kept) in self.revisions.items()
            ),
            coordinator_workload=self.coordinator,
            worker_workload=self.workers,
            coordinator_pods=tuple(p for p in self.pods.values() if p.ordinal is None),
            worker_pods=tuple(p for p in self.pods.values() if p.ordinal is not None),
            claims=tuple(Claim(f"data-{NAME}-{i}", i) for i in sorted(self.claims)),
            coordinator=self.answer(),
            unreachable=None if self.answer() else "connection refused",
            check=next(iter(self.checks.values()), None),
            savepoints=tuple(self.savepoints.values()),
            accepted=newest[1] if newest else None,
            applied=self.revisions.get(self.status.revision or "", (0, None))[1],
            selector=f"penstock.dev/job={NAME}",
        )
        return replace(seen, **self.seen)

    def turn(self, count: int = 1, *, each: timedelta = timedelta(seconds=1)) -> Decision:
        """Look, write the status, carry out the effects, and let the world go on."""
        for _ in range(count):
            self.decision = reconcile(self.observed(), self.now)
            self.status = self.decision.status
            for effect in self.decision.effects:
                self.done.append(effect)
                self.carry_out(effect)
            self.live()
            self.now += each
        assert self.decision is not None
        return self.decision

    def until(self, is_so: Callable[[World], bool], *, turns: int = 200) -> None:
        """Turn until something is so."""
        for _ in range(turns):
            if is_so(self):
                return
            self.turn()
        raise AssertionError((self.status, self.done[-10:], self.log, self.phase))

    def settle(self) -> None:
        """Turn until no move is under way, and none follows."""
        quiet = 0
        for _ in range(200):
            self.turn()
            quiet = 0 if self.status.move else quiet + 1
            if quiet > 3:
                return
        raise AssertionError((self.status, self.done[-10:], self.log, self.phase))

    def last(self, kind: type[E]) -> E | None:
        """The newest effect of a kind."""
        return next((e for e in reversed(self.done) if isinstance(e, kind)), None)

    def orders(self, kind: type[E]) -> list[E]:
        """Orders that were sent, in order."""
        return [e.order for e in self.done if isinstance(e, do.Send) and isinstance(e.order, kind)]

    def told(self) -> list[str]:
        """Reasons of Kubernetes Events."""
        return [e.reason for e in self.done if isinstance(e, do.Announce)]

    def condition(self, kind: str) -> tuple[str, str]:
        """Status and reason."""
        return next((c.status, c.reason) for c in self.status.conditions if c.type == kind)

    # ── the cluster ─────────────────────────────────────────────────────────────────────────────

    def carry_out(self, effect: Effect) -> None:
        match effect:
            case do.SetFinalizer(present):
                self._toggle(self.finalizers, FINALIZER_STREAMJOB, present)
            case do.RecordRevision(revision, number):
                assert self.spec is not None
                self.revisions.setdefault(revision, (number, self.spec))
            case do.ForgetRevision(name):
                self.revisions.pop(name.removeprefix(f"{NAME}-"))
            case do.RecordDigests(name, digests):
                self.digests[name.removeprefix(f"{NAME}-")] = dict(digests)
            case do.EnsureShared(revision):
                assert revision in self.revisions
            case do.EnsureCoordinator(revision):
                self.coordinator = Workload("deployment", revision, 1)
            case do.EnsureWorkers(revision, replicas):
                self.workers = Workload("statefulset", revision, replicas)
            case do.RemoveCoordinator():
                self.coordinator = None
            case do.DeletePods(pods):
                for name, uid in pods:
                    if name in self.pods and self.pods[name].uid == uid:
                        del self.pods[name]
                    self.checks = {k: c for k, c in self.checks.items() if c.uid != uid}
            case do.DeleteClaims(names):
                self.claims -= {int(name.rpartition("-")[2]) for name in names}
            case do.RunCheck(revision, against):
                self.checks.setdefault(
                    revision,
                    Report(
                        f"{NAME}-check-{revision}",
                        self._uid(),
                        revision,
                        against,
                        self.now,
                        has_ended=self.verdict is not None,
                        verdict=self.verdict,
                    ),
                )
            case do.Send(order):
                self.take(order)
            case do.CreateSavepoint(name, what, annotations):
                made = SavepointObject(
                    name, self._uid(), what, SavepointStatus(), dict(annotations), (), self.now
                )
                self.savepoints.setdefault(name, made)
            case do.WriteSavepointStatus(name, status):
                self.savepoints[name] = replace(self.savepoints[name], status=status)
            case do.SetSavepointFinalizer(name, present):
                found = {FINALIZER_SAVEPOINT} if present else set()
                self.savepoints[name] = replace(self.savepoints[name], finalizers=tuple(found))
            case _:
                pass

    def live(self) -> None:
        """Pods come and go, the coordinator goes on by itself."""
        revision = self.coordinator.revision if self.coordinator else None
        for pod in list(self.pods.values()):
            if pod.ordinal is None and pod.revision != revision:
                del self.pods[pod.name]
                self.requests.clear()
                self.phase = JobPhase.WAITING
            elif pod.ordinal is not None and (
                self.workers is None or pod.ordinal >= self.workers.replicas
            ):
                del self.pods[pod.name]
        if revision is not None and not any(p.ordinal is None for p in self.pods.values()):
            self._pod("coordinator", revision, None)
            self.requests.clear()
            self.phase = self.log.end or JobPhase.WAITING
        for i in range(self.workers.replicas if self.workers else 0):
            assert self.workers is not None
            self.claims.add(i)
            if f"{NAME}-{i}" not in self.pods:
                self._pod(str(i), self.workers.revision, i)
        self._coordinate(revision)

    def _coordinate(self, revision: str | None) -> None:
        log = self.log
        if (
            self.phase is JobPhase.WAITING
            and log.end is None
            and log.attempt
            and revision == log.revision
        ):
            self._open(log.revision, log.parallelism)
        elif self.phase is JobPhase.DEPLOYING:
            if log.revision in self.broken:
                self._open(log.revision, log.parallelism)
            else:
                self.phase = JobPhase.RUNNING
        elif self.phase is JobPhase.RUNNING:
            self.complete()

    def complete(self) -> None:
        """One more checkpoint."""
        log = self.log
        log.newest += 1
        log.seq += 1
        log.completed += 1
        log.next_restore = f"s3://bucket/checkpoints/shop.wordcount/chk-{log.newest}"
        if log.hold is not None:
            held = log.hold.model_copy(update={"completed": log.completed})
            log.hold = held if log.completed < held.stable else None

    def _open(self, revision: str, parallelism: int) -> None:
        log = self.log
        log.attempt += 1
        log.seq += 1
        log.revision, log.parallelism = revision, parallelism
        log.end, log.completed, log.restored_from = None, 0, log.next_restore
        self.phase = JobPhase.DEPLOYING

    # ── the coordinator ─────────────────────────────────────────────────────────────────────────

    def answer(self) -> JobStatus | None:
        log, pods = self.log, [p for p in self.pods.values() if p.ordinal is None]
        if not pods or not pods[0].is_ready or self.silent:
            return None
        newest = SnapshotStatus(
            id=log.newest,
            path=log.next_restore or "",
            completed_at_ms=int(self.now.timestamp() * 1000),
            duration_ms=40,
            size_bytes=4096,
        )
        return JobStatus(
            job_id="shop.wordcount",
            name=NAME,
            phase=self.phase,
            revision=log.revision or pods[0].revision,
            attempt=log.attempt,
            parallelism=log.parallelism,
            max_parallelism=128 if log.attempt else 0,
            started_at_ms=int(START.timestamp() * 1000),
            log_seq=log.seq,
            last_checkpoint=newest if log.newest else None,
            last_savepoint=log.last_savepoint,
            restored_from=log.restored_from,
            next_restore=log.next_restore,
            restore_id=log.restore_id,
            completed_in_attempt=log.completed,
            hold=log.hold,
            rescale=log.rescale,
            settings=log.settings,
            workers=tuple(
                WorkerStatus(id=p.ordinal) for p in self.pods.values() if p.ordinal is not None
            ),
            requests=tuple(self.requests.values()),
        )

    def take(self, order: Order) -> None:
        """What a coordinator does with an order."""
        if self.answer() is None or order.request_id in self.requests:
            return
        error, path, refusal = self.refuses.get(type(order)), None, self.refusal
        if error is None:
            error, path = self._obey(order)
            refusal = RefusalKind.OUTDATED
        self.requests[order.request_id] = RequestStatus(
            request_id=order.request_id,
            kind=type(order).__name__,
            phase=RequestPhase.FAILED if error else RequestPhase.DONE,
            path=path,
            error=error,
            refusal=refusal if error else None,
        )

    def _obey(self, order: Order) -> tuple[str | None, str | None]:
        log, is_active = self.log, self.phase in (JobPhase.RUNNING, JobPhase.DEPLOYING)
        match order:
            case StartOrder() if is_active:
                return "the job runs already", None
            case StartOrder() if order.after != log.seq:
                return (
                    "the order was given after another entry of the log, which has moved on",
                    None,
                )
            case StartOrder() if log.request_id != order.request_id:
                self._start(order)
            case StopOrder() | CancelOrder() if log.request_id == order.request_id:
                pass
            case StopOrder() | CancelOrder() if not is_active:
                return "the job does not run", None
            case StopOrder():
                if self.phase is not JobPhase.RUNNING:
                    return "the job restarts", None
                self.complete()
                log.hold = None
                self._end(JobPhase.STOPPED, order.request_id)
            case CancelOrder():
                self._end(JobPhase.CANCELLED, order.request_id)
            case RescaleOrder(parallelism=parallelism):
                log.rescale = RescaleStatus(
                    request_id=order.request_id,
                    from_parallelism=log.parallelism,
                    to_parallelism=parallelism,
                    key_groups_moved=42,
                    bytes_moved=2048,
                    pause_ms=900,
                )
                self.complete()
                self._open(log.revision, parallelism)
            case SettingsOrder(settings=settings):
                log.settings = settings
            case SavepointOrder() | CheckpointOrder() if not is_active:
                return "the job does not run", None
            case _:
                pass
        if isinstance(order, StopOrder | SavepointOrder):
            path = f"{SAVEPOINTS}/savepoint-{order.request_id}"
            log.last_savepoint = SnapshotStatus(
                id=log.newest,
                path=path,
                completed_at_ms=int(self.now.timestamp() * 1000),
                duration_ms=80,
                size_bytes=12_345_678,
            )
            return None, path
        return None, order.path if isinstance(order, DisposeOrder) else None

    def _start(self, order: StartOrder) -> None:
        log = self.log
        before = log.next_restore
        if order.origin is Origin.EMPTY:
            log.next_restore = None
        elif order.origin is Origin.HOLD:
            assert log.hold is not None
            log.next_restore = log.hold.path
        elif order.restore is not None:
            id = restore_id_of(order.restore)
            if log.attempt and id != log.restore_id and order.restore.from_ != "Latest":
                log.next_restore = order.restore.from_
            log.restore_id = id
        log.hold = None
        if order.hold and log.next_restore and self.holds:
            log.hold = HoldStatus(
                after=log.newest, stable=order.hold, completed=0, path=log.next_restore
            )
        log.request_id, log.settings = order.request_id, order.settings
        self._open(order.revision, order.parallelism)
        assert before is None or log.newest > 0

    def _end(self, phase: JobPhase, request_id: str) -> None:
        self.log.end, self.log.request_id, self.phase = phase, request_id, phase
        self.log.seq += 1

    def _pod(self, suffix: str, revision: str, ordinal: int | None) -> None:
        name = f"{NAME}-{suffix}"
        self.pods[name] = Pod(
            name,
            self._uid(),
            revision,
            PodPhase.RUNNING,
            True,
            self.now,
            ordinal=ordinal,
            image_digest=self.image_digest,
        )

    def _uid(self) -> str:
        self._uids += 1
        return f"pod-{self._uids}"

    @staticmethod
    def _toggle(names: set[str], name: str, present: bool) -> None:
        names.add(name) if present else names.discard(name)


@pytest.fixture
def world() -> World:
    """Nothing but the object, just applied."""
    return World()


@pytest.fixture
def running(world: World) -> World:
    """A job that runs and is stable."""
    world.settle()
    world.until(lambda w: w.status.stable_revision == w.revision)
    world.done.clear()
    return world
