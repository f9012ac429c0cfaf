"""The API server and those who act on it late: the controllers of workloads, the kubelet, the garbage
collector. One tick is a second; each does what it has to do at some tick, rarely at the first.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.simulation.operator.code import Code
from tests.simulation.operator.coordinator import Coordinator, StoodDown
from tests.simulation.operator.store import End, EndKind, Snapshot, Store

from penstock.core.errors import Retryable
from penstock.spec.changes import revision_of
from penstock.spec.streamjob import StreamJobSpec
from penstock_operator.manifests import names
from penstock_operator.reconcile.observed import Pod, PodPhase, Report
from penstock_operator.resources.status import SavepointSpec, SavepointStatus, StreamJobStatus
from penstock_operator.resources.streamjob import read_spec

JOB = "job"
NAMESPACE = "ns"
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class NotThere(Retryable):
    """There is no such object, or something that it needs is missing."""


class Conflict(Retryable):
    """The object has gone on."""


@dataclass(slots=True)
class StreamJobObject:
    """The StreamJob: spec as a person wrote it, status as the operator did."""

    uid: str
    spec: dict[str, Any]
    generation: int = 1
    version: int = 1
    annotations: dict[str, str] = field(default_factory=dict)
    finalizers: set[str] = field(default_factory=set)
    status: StreamJobStatus = field(default_factory=StreamJobStatus)
    deleted_at: datetime | None = None


@dataclass(slots=True)
class RecordObject:
    """A ControllerRevision."""

    name: str
    number: int
    revision: str
    spec: StreamJobSpec
    owner: str
    digests: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(slots=True)
class WorkloadObject:
    """A Deployment or a StatefulSet."""

    uid: str
    revision: str
    replicas: int
    owner: str


@dataclass(slots=True)
class PodObject:
    """A pod. `role` is coordinator, worker, check or disposal."""

    name: str
    uid: str
    role: str
    revision: str
    owner: str
    created_at: datetime
    ordinal: int | None = None
    is_deleting: bool = False
    is_running: bool = False
    is_ready: bool = False
    restarts: int = 0
    waiting: str | None = None
    termination: str | None = None
    image_digest: str | None = None
    process: Coordinator | None = None
    registered_with: Coordinator | None = None
    purpose: str = ""
    against: str | None = None
    verdict: Mapping[str, Any] | None = None
    has_ended: bool = False

    def seen(self) -> Pod:
        """As it is observed."""
        return Pod(
            name=self.name,
            uid=self.uid,
            revision=self.revision,
            phase=PodPhase.RUNNING if self.is_running else PodPhase.PENDING,
            is_ready=self.is_ready and not self.is_deleting,
            created_at=self.created_at,
            ordinal=self.ordinal,
            is_deleting=self.is_deleting,
            restarts=self.restarts,
            waiting=self.waiting,
            termination=self.termination,
            image_digest=self.image_digest,
        )

    def report(self) -> Report:
        """As one that does one thing."""
        return Report(
            name=self.name,
            uid=self.uid,
            purpose=self.purpose,
            against=self.against,
            created_at=self.created_at,
            has_ended=self.has_ended,
            verdict=self.verdict,
            waiting=self.waiting,
        )


@dataclass(slots=True)
class ClaimObject:
    """A volume claim. `owner` is the StatefulSet that it goes with."""

    name: str
    ordinal: int
    owner: str
    is_deleting: bool = False


@dataclass(slots=True)
class SavepointObject:
    """A Savepoint."""

    name: str
    uid: str
    spec: SavepointSpec
    annotations: dict[str, str]
    created_at: datetime
    status: SavepointStatus = field(default_factory=SavepointStatus)
    finalizers: set[str] = field(default_factory=set)
    deleted_at: datetime | None = None


class Cluster:
    """Everything in one namespace. `slowness` is the share of ticks at which an actor does nothing."""

    def __init__(
        self,
        rng: random.Random,
        store: Store,
        *,
        input_length: int | None,
        note: Callable[[str], None],
    ) -> None:
        self.rng = rng
        self.store = store
        self.note = note
        self.slowness = rng.choice((0.2, 0.5, 0.9))
        self.trouble = 0.0
        self.now = EPOCH
        self.job: StreamJobObject | None = None
        self.records: dict[str, RecordObject] = {}
        self.shared: set[str] = set()
        self.deployment: WorkloadObject | None = None
        self.stateful_set: WorkloadObject | None = None
        self.pods: dict[str, PodObject] = {}
        self.claims: dict[int, ClaimObject] = {}
        self.savepoints: dict[str, SavepointObject] = {}
        self.tags_moved = 0
        self.is_namespace_terminating = False
        self.was_taken_apart = False
        """Whether somebody deleted the Deployment: then nobody could be told to stop."""
        self.opened: tuple[str, datetime] | None = None
        """UID of the StreamJob under which the newest attempt was opened, and when."""
        self.changes = 0
        """Counts what a watch would tell of."""
        self.events: list[str] = []
        self._input_length = input_length
        self._uids = itertools.count(1)
        self._specs: dict[str, tuple[StreamJobSpec | None, tuple[str, ...], str | None]] = {}

    def uid(self, what: str) -> str:
        """Never the same twice."""
        return f"{what}-{next(self._uids):05}"

    def changed(self) -> None:
        """Something that is watched changed."""
        self.changes += 1

    # ── reading ─────────────────────────────────────────────────────────────────────────────────

    def read(
        self, spec: Mapping[str, Any]
    ) -> tuple[StreamJobSpec | None, tuple[str, ...], str | None]:
        """The spec with its mistakes and its revision."""
        text = json.dumps(spec, sort_keys=True)
        if text not in self._specs:
            found = read_spec(
                {
                    "apiVersion": "penstock.dev/v1alpha1",
                    "kind": "StreamJob",
                    "metadata": {"name": JOB},
                    "spec": spec,
                }
            )
            revision = revision_of(found.spec) if found.spec else None
            self._specs[text] = (found.spec, found.mistakes, revision)
        return self._specs[text]

    def of_role(self, role: str) -> list[PodObject]:
        """Pods of a role, in the order of their names."""
        return sorted((p for p in self.pods.values() if p.role == role), key=lambda p: p.name)

    def answering(self) -> Coordinator | None:
        """The coordinator that the Service leads to."""
        ready = [
            p
            for p in self.of_role("coordinator")
            if p.is_ready and not p.is_deleting and p.process is not None
        ]
        return ready[0].process if ready else None

    def code(self, revision: str) -> Code:
        """What a revision runs."""
        return Code(self.records[revision].spec.image or "")

    # ── writing ─────────────────────────────────────────────────────────────────────────────────

    def record(self, spec: StreamJobSpec, revision: str, number: int) -> None:
        """Keep a revision once; its place in the order may change."""
        assert self.job is not None, revision
        if revision in self.records:
            self.records[revision].number = number
        else:
            name = names.revision(JOB, revision)
            self.records[revision] = RecordObject(name, number, revision, spec, self.job.uid)
        self.changed()

    def delete_pod(self, name: str, uid: str | None = None, *, force: bool = False) -> None:
        """Tell a pod to go."""
        pod = self.pods.get(name)
        if pod is None or (uid is not None and pod.uid != uid):
            return
        pod.is_deleting = True
        self.changed()
        if force or (not pod.is_running and self.rng.random() < 0.5):
            self._remove_pod(pod)

    def _remove_pod(self, pod: PodObject) -> None:
        self.note(f"pod {pod.name} is gone")
        pod.process = None
        self.pods.pop(pod.name, None)
        self.changed()

    def create_pod(self, name: str, role: str, revision: str, **more: Any) -> PodObject:
        """A new pod; its name is free."""
        assert name not in self.pods, name
        assert self.job is not None, name
        pod = PodObject(name, self.uid("pod"), role, revision, self.job.uid, self.now, **more)
        self.pods[name] = pod
        self.note(f"pod {name} of {revision} is created")
        self.changed()
        return pod

    # ── everybody else ──────────────────────────────────────────────────────────────────────────

    def tick(self) -> None:
        """A second passes for all but the operator and people."""
        self.now += timedelta(seconds=1)
        acts: list[Callable[[], None]] = [
            self._stateful_set_controller,
            self._deployment_controller,
            self._garbage_collector,
            self._claims_controller,
            *(lambda p=pod: self._kubelet(p) for pod in list(self.pods.values())),
        ]
        self.rng.shuffle(acts)
        for act in acts:
            act()

    def _is_late(self) -> bool:
        return self.rng.random() < self.slowness

    def _stateful_set_controller(self) -> None:
        workload = self.stateful_set
        if workload is None or self.job is None or self._is_late():
            return
        workers = {p.ordinal: p for p in self.of_role("worker")}
        for ordinal in range(workload.replicas):
            if not self.is_namespace_terminating:
                self._keep_worker(workload, ordinal, workers.get(ordinal))
        for ordinal, pod in sorted(workers.items(), key=lambda item: -(item[0] or 0)):
            if ordinal is not None and ordinal >= workload.replicas and not pod.is_deleting:
                self.delete_pod(pod.name)

    def _keep_worker(self, workload: WorkloadObject, ordinal: int, pod: PodObject | None) -> None:
        """A claim for a pod that does not run, taken over from a former StatefulSet; then the pod."""
        claim = self.claims.get(ordinal)
        if claim is None and (pod is None or not pod.is_running):
            name = f"state-{JOB}-worker-{ordinal}"
            claim = self.claims[ordinal] = ClaimObject(name, ordinal, workload.uid)
        if pod is None:
            # It makes none for a claim that goes, if it has seen that already.
            has_seen = self.rng.random() < 0.8
            goes = claim is not None and claim.is_deleting
            if not (goes and has_seen) and not self._is_late():
                self.create_pod(
                    f"{JOB}-worker-{ordinal}", "worker", workload.revision, ordinal=ordinal
                )
        elif claim is not None and not claim.is_deleting:
            claim.owner = workload.uid

    def _deployment_controller(self) -> None:
        workload = self.deployment
        if self.job is None or self._is_late():
            return
        pods = self.of_role("coordinator")
        if workload is None:
            return
        old = [p for p in pods if p.revision != workload.revision and not p.is_deleting]
        for pod in old:
            self.delete_pod(pod.name)
        fresh = [p for p in pods if p.revision == workload.revision and not p.is_deleting]
        if not old and not fresh and not self.is_namespace_terminating:
            self.create_pod(
                f"{JOB}-coordinator-{next(self._uids)}", "coordinator", workload.revision
            )

    def _garbage_collector(self) -> None:
        """Deletes what an owner left behind, a bit at a time."""
        if self._is_late():
            return
        owner = self.job.uid if self.job is not None else None
        if self.deployment is None or self.deployment.owner != owner:
            self.deployment = None
            self._delete_pods(self.of_role("coordinator"))
        if self.stateful_set is None or self.stateful_set.owner != owner:
            self.stateful_set = None
            self._delete_pods(self.of_role("worker"))
        self._delete_pods([p for p in self.pods.values() if p.owner != owner])
        self._delete_claims(self.stateful_set.uid if self.stateful_set is not None else None)
        orphans = [r for r in self.records.values() if r.owner != owner]
        for record in orphans[:1]:
            del self.records[record.revision]
            self.shared.discard(record.revision)

    def _delete_pods(self, pods: list[PodObject]) -> None:
        for pod in pods:
            if not pod.is_deleting:
                self.delete_pod(pod.name)

    def _delete_claims(self, owner: str | None) -> None:
        """One that belongs to a StatefulSet that is gone; each is found at a time of its own."""
        for claim in self.claims.values():
            if claim.owner != owner and not claim.is_deleting and not self._is_late():
                self.note(f"claim {claim.name} goes with its StatefulSet")
                claim.is_deleting = True
                self.changed()

    def lacks_volume(self, pod: PodObject) -> bool:
        """Whether its claim is on its way out: it cannot begin, and holds it."""
        claim = self.claims.get(pod.ordinal) if pod.ordinal is not None else None
        return claim is not None and claim.is_deleting

    def _claims_controller(self) -> None:
        used = {p.ordinal for p in self.of_role("worker")}
        for ordinal, claim in list(self.claims.items()):
            if claim.is_deleting and ordinal not in used and not self._is_late():
                del self.claims[ordinal]
                self.changed()

    def _kubelet(self, pod: PodObject) -> None:
        if self.pods.get(pod.name) is not pod:
            return
        if pod.is_deleting:
            if self.rng.random() < 0.3:
                self._remove_pod(pod)
            elif pod.process is not None:
                self._run(pod)
            return
        if pod.is_running:
            self._run(pod)
        elif not self._is_late():
            self._start(pod)

    def _start(self, pod: PodObject) -> None:
        if pod.revision not in self.records or pod.revision not in self.shared:
            pod.waiting = "ContainerCreating"
            return
        code = self.code(pod.revision)
        if not code.can_be_pulled:
            self._waits(pod, "ImagePullBackOff")
            return
        if pod.role in ("check", "disposal"):
            self._do_one_thing(pod, code)
            return
        if pod.ordinal is not None and (pod.ordinal not in self.claims or self.lacks_volume(pod)):
            pod.waiting = "ContainerCreating"
            return
        if pod.role == "worker" and code.worker_dies:
            pod.restarts += 1
            pod.termination = '{"what": "it cannot be imported", "exitCode": 1}'
            self._waits(pod, "CrashLoopBackOff")
            return
        pod.is_running, pod.waiting = True, None
        pod.image_digest = f"sha256:{code.image}@{self.tags_moved}"
        self.changed()

    def _waits(self, pod: PodObject, reason: str) -> None:
        if pod.waiting != reason:
            pod.waiting = reason
            self.changed()

    def _run(self, pod: PodObject) -> None:
        if pod.role == "coordinator":
            self._run_coordinator(pod)
        elif pod.role == "worker":
            self._run_worker(pod)

    def _run_coordinator(self, pod: PodObject) -> None:
        if pod.process is None:
            if pod.is_deleting or self._is_late():
                return
            pod.process = Coordinator(
                self.store,
                self.rng,
                pod.revision,
                self.code(pod.revision),
                workers=lambda: self._registered(pod),
                now=lambda: self.now,
                input_length=self._input_length,
                note=self.note,
            )
            return
        if not pod.is_ready and pod.process.has_read_log and not self._is_late():
            pod.is_ready = True
            self.changed()
        pod.process.trouble = self.trouble
        with suppress(StoodDown):
            pod.process.tick()
        if pod.process.stood_down and self.rng.random() < 0.5:
            self.kill_process(pod)

    def kill_process(self, pod: PodObject) -> None:
        """Its container ends, and is started again."""
        pod.process = None
        pod.registered_with = None
        pod.restarts += 1
        if pod.is_ready:
            pod.is_ready = False
            self.changed()

    def _run_worker(self, pod: PodObject) -> None:
        leader = self.answering()
        if pod.registered_with is not None and pod.registered_with is not leader:
            if self._is_late() and any(
                p.process is pod.registered_with for p in self.of_role("coordinator")
            ):
                return
            pod.registered_with = None
            pod.is_ready = False
            self.changed()
        may_register = pod.registered_with is None and leader is not None and not pod.is_deleting
        if may_register and not self._is_late():
            pod.registered_with = leader
            pod.is_ready = True
            self.changed()

    def _registered(self, coordinator: PodObject) -> dict[int, str]:
        process = coordinator.process
        return {
            p.ordinal: p.revision
            for p in self.pods.values()
            if p.ordinal is not None and process is not None and p.registered_with is process
        }

    def _do_one_thing(self, pod: PodObject, code: Code) -> None:
        pod.is_running, pod.waiting = True, None
        if self.rng.random() < self.trouble:
            pod.verdict = {"what": "the store is away", "exitCode": 3}
        elif pod.role == "check":
            pod.verdict = self._verdict(pod, code)
        else:
            self._dispose(pod)
        pod.has_ended = True
        self.changed()

    def _verdict(self, pod: PodObject, code: Code) -> dict[str, Any]:
        snapshot: Snapshot | None = None
        if pod.against == "latest":
            snapshot = self.store.newest.point if self.store.newest else None
        elif pod.against is not None:
            newest = self.store.newest.point if self.store.newest else None
            snapshot = self.store.find(pod.against) or newest
        fits = code.reads(snapshot)
        return {
            "fits": fits,
            "what": "it fits" if fits else "state count has another type",
            "where": None,
            "fix": None,
            "snapshot": snapshot.path if snapshot else None,
            "startsEmpty": [],
            "exitCode": 0 if fits else 2,
        }

    def _dispose(self, pod: PodObject) -> None:
        if pod.purpose == names.ALL_CHECKPOINTS:
            entry = self.store.newest
            if entry is not None:
                end = End(EndKind.CANCELLED, None, committed=True, deletes=True)
                self.store.append(entry, entry.follows("ended", retained=(), hold=None, end=end))
        else:
            self.store.dispose(pod.purpose)
        pod.verdict = {"disposed": True, "what": "done", "path": pod.purpose, "exitCode": 0}

    def leftovers(self) -> Iterator[str]:
        """What there is of a job that is gone."""
        yield from self.pods
        yield from (name for name in self.records)
        if self.deployment is not None:
            yield "the Deployment"
        if self.stateful_set is not None:
            yield "the StatefulSet"
        yield from (claim.name for claim in self.claims.values())
