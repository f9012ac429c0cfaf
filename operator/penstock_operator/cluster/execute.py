"""What was decided, done: the status first, then one plain case for each effect, in order.

Every case leads to a level: done twice, or again after a kill in the middle, it ends in the same.
What is gone already, or was made meanwhile, is that level, too.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, assert_never

from penstock.core.errors import Rejected, Retryable
from penstock.spec.orders import Order
from penstock_operator.cluster import facts
from penstock_operator.cluster.apply import applied_hash, ensure, must_be_ours, with_hash
from penstock_operator.cluster.coordinator_client import CoordinatorClient
from penstock_operator.cluster.events import About, Recorder
from penstock_operator.cluster.keys import token_of
from penstock_operator.cluster.kube import (
    CLAIMS,
    CONFIG_MAPS,
    DEPLOYMENTS,
    PODS,
    REVISIONS,
    SAVEPOINTS,
    STREAM_JOBS,
    Conflict,
    Kube,
    NotFound,
    Resource,
)
from penstock_operator.cluster.log import Log
from penstock_operator.cluster.memory import Memory
from penstock_operator.cluster.observe import Seen, Settings, status_of
from penstock_operator.manifests import access, config, coordinator, names, short, workers
from penstock_operator.manifests.names import Job, Manifest
from penstock_operator.manifests.record import Record
from penstock_operator.reconcile import effects
from penstock_operator.reconcile.effects import Decision, Effect
from penstock_operator.resources.names import (
    API_VERSION,
    FINALIZER_SAVEPOINT,
    FINALIZER_STREAMJOB,
    LABEL_JOB,
)
from penstock_operator.resources.status import (
    SavepointPhase,
    SavepointStatus,
    StatusModel,
    StreamJobStatus,
)


class SchemaTooOld(Rejected):
    """The CRD threw fields of a status away: it is older than this operator."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What deeds are done with, the same for all jobs. `key` is the operator's own."""

    kube: Kube
    coordinators: CoordinatorClient
    memory: Memory
    settings: Settings
    recorder: Recorder
    key: bytes
    now: Callable[[], datetime]
    log: Log


def execute(tools: Tools, seen: Seen, decision: Decision) -> None:
    """Carry out all of a decision.

    Raises:
        Conflict: the StreamJob has gone on; nothing was done, look again.
        SchemaTooOld: the status was not kept as it was written; nothing else was done.
        Retryable, Rejected: an effect failed; those after it were not begun.
    """
    manifest = _write_status(tools.kube, seen, decision.status)
    deeds = _Deeds(tools, seen, manifest)
    for effect in decision.effects:
        deeds.carry_out(effect)


def _write_status(kube: Kube, seen: Seen, status: StreamJobStatus) -> Manifest:
    """Written, read back and compared, before anything is done that relies on it."""
    if status == seen.observed.job.status:
        return seen.manifest
    stored = kube.replace_status(STREAM_JOBS, {**seen.manifest, "status": as_written(status)})
    if status_of(stored) != status:
        raise SchemaTooOld(
            "the API server did not keep the status as it was written: the CRD is older than this operator",
            where=f"StreamJob {seen.job.namespace}/{seen.job.name}",
            fix="apply the CRDs of this version; until then nothing is done to this StreamJob",
        )
    return stored


def as_written(status: StatusModel) -> dict[str, Any]:
    """Plain values; what is None is left out."""
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)


class _Deeds:
    """The effects of one decision about one job; `manifest` is its newest version."""

    def __init__(self, tools: Tools, seen: Seen, manifest: Manifest) -> None:
        self._tools = tools
        self._kube = tools.kube
        self._seen = seen
        self._job: Job = seen.job
        self._manifest = manifest

    def carry_out(self, effect: Effect) -> None:
        """One effect."""
        match effect:
            case effects.SetFinalizer(present=present):
                patched = set_finalizer(
                    self._kube, STREAM_JOBS, self._manifest, FINALIZER_STREAMJOB, present=present
                )
                self._manifest = patched or self._manifest
            case effects.RecordRevision():
                self._record(effect)
            case effects.ForgetRevision(name=name):
                self._delete(REVISIONS, name)
                self._delete(CONFIG_MAPS, name)
            case effects.RecordDigests(name=name, digests=digests):
                kept = {names.IMAGE_DIGEST: facts.digests_text(digests)}
                with suppress(NotFound):
                    self._merge(REVISIONS, name, {"metadata": {"annotations": kept}})
            case effects.EnsureShared(revision=revision):
                self._ensure_shared(self._record_of(revision))
            case effects.EnsureCoordinator(revision=revision):
                template = self._record_of(revision).coordinator
                manifest = coordinator.deployment(self._job, revision, template)
                self._ensure(manifest, self._seen.deployment)
            case effects.EnsureWorkers(revision=revision, replicas=replicas):
                self._ensure_workers(self._record_of(revision), replicas)
            case effects.RemoveCoordinator():
                self._delete(DEPLOYMENTS, names.coordinator(self._job.name))
            case effects.DeletePods(pods=pods, force=force):
                for name, uid in pods:
                    self._delete(PODS, name, uid=uid, grace_seconds=0 if force else None)
            case effects.DeleteClaims(names=claims):
                for name in claims:
                    self._delete(CLAIMS, name)
            case effects.RunCheck(revision=revision, against=against):
                record = self._record_of(revision)
                self._run(record, short.check_pod(self._job, record, against))
            case effects.RunDisposal(revision=revision, path=path):
                record = self._record_of(revision)
                self._run(record, short.disposal_pod(self._job, record, path))
            case effects.Send(order=order):
                self._send(order)
            case effects.CreateSavepoint():
                self._create_savepoint(effect)
            case effects.WriteSavepointStatus(name=name, status=status):
                if savepoint := self._kube.find(SAVEPOINTS, self._job.namespace, name):
                    self._write_savepoint(savepoint, status)
            case effects.SetSavepointFinalizer(name=name, present=present):
                if savepoint := self._kube.find(SAVEPOINTS, self._job.namespace, name):
                    set_finalizer(
                        self._kube, SAVEPOINTS, savepoint, FINALIZER_SAVEPOINT, present=present
                    )
            case effects.Announce():
                self._announce(effect)
            case _:
                assert_never(effect)

    # Revisions

    def _record(self, effect: effects.RecordRevision) -> None:
        """Kept once: its data cannot be changed, only its place in the order."""
        record = self._rendered(effect.revision)
        wanted = record.controller_revision(self._job, effect.number)
        try:
            self._kube.create(wanted)
        except Conflict:
            name = wanted["metadata"]["name"]
            live = self._kube.get(REVISIONS, self._job.namespace, name)
            must_be_ours(self._job, live, "ControllerRevision")
            if live["revision"] != effect.number:
                version = {"resourceVersion": live["metadata"]["resourceVersion"]}
                self._merge(REVISIONS, name, {"metadata": version, "revision": effect.number})

    def _record_of(self, revision: str) -> Record:
        """As it was kept; never rendered anew once it is."""
        return self._seen.records.get(revision) or self._rendered(revision)

    def _rendered(self, revision: str) -> Record:
        job = self._seen.observed.job
        if job.spec is None or job.revision != revision:
            raise Retryable(
                f"revision {revision} is neither kept nor the one that the spec asks for",
                where=f"StreamJob {self._job.namespace}/{self._job.name}",
            )
        settings = self._tools.settings
        return Record.of(
            self._job,
            job.spec,
            revision,
            default_image=settings.worker_image,
            cluster=settings.cluster,
        )

    # What a revision runs on

    def _ensure(self, manifest: Manifest, live: Manifest | None = None) -> None:
        ensure(self._kube, self._tools.memory, self._job, manifest, live)

    def _ensure_what_pods_mount(self, record: Record) -> None:
        recorded = record.model()
        if recorded.service_account_name is None:
            self._ensure(access.service_account(self._job))
        self._ensure(access.token_secret(self._job, self._token()))
        current = self._seen.observed.job.spec
        self._ensure(config.config_map(self._job, record.revision, recorded, current))

    def _ensure_shared(self, record: Record) -> None:
        self._ensure_what_pods_mount(record)
        self._ensure(coordinator.coordinator_service(self._job))
        self._ensure(workers.worker_service(self._job))
        self._ensure(workers.disruption_budget(self._job))
        self._ensure(access.network_policy(self._job))

    def _ensure_workers(self, record: Record, replicas: int) -> None:
        live = self._seen.stateful_set
        spec = self._seen.observed.job.spec or record.model()
        # Claims of one that exists cannot be changed.
        claims = (
            facts.claim_templates(live)
            if live is not None
            else workers.claim_templates(self._job, spec.worker.volume)
        )
        manifest = workers.stateful_set(
            self._job, record.revision, record.worker, replicas=replicas, claims=claims
        )
        self._ensure(manifest, live)

    # Pods that do one thing

    def _run(self, record: Record, pod: Manifest) -> None:
        """One that did something else under this name makes room first; the next turn makes it."""
        self._ensure_what_pods_mount(record)
        wanted, name = with_hash(pod), pod["metadata"]["name"]
        live = self._kube.find(PODS, self._job.namespace, name)
        if live is None:
            with suppress(Conflict):
                self._kube.create(wanted)
        elif applied_hash(live) != applied_hash(wanted) and not facts.is_deleting(live):
            self._delete(PODS, name, uid=live["metadata"]["uid"])

    # The coordinator

    def _token(self) -> str:
        return token_of(self._tools.key, self._job.uid)

    def _send(self, order: Order) -> None:
        """What becomes of it is seen in the next status, or, refused, among the refusals."""
        job, tools = self._job, self._tools
        try:
            refusal = tools.coordinators.send(job.namespace, job.name, order, token=self._token())
        except Retryable as e:
            tools.log.info("order not taken", job=_text(job), order=order.request_id, error=e.what)
            return
        tools.memory.remember_refusal(job.uid, order.request_id, refusal)
        if refusal is not None:
            said = {"job": _text(job), "order": order.request_id, "error": refusal.error}
            tools.log.info("order refused", **said)

    def _announce(self, effect: effects.Announce) -> None:
        tools = self._tools
        tools.log.info(effect.message, job=_text(self._job), reason=effect.reason)
        tools.recorder.tell(About.of(self._job), effect)

    # Savepoints

    def _create_savepoint(self, effect: effects.CreateSavepoint) -> None:
        """With what is known of it already, unless more is known there."""
        manifest = {
            "apiVersion": API_VERSION,
            "kind": "Savepoint",
            "metadata": {
                "name": effect.name,
                "namespace": self._job.namespace,
                "labels": {LABEL_JOB: self._job.name},
                "annotations": dict(effect.annotations),
            },
            "spec": as_written(effect.spec),
        }
        try:
            live = self._kube.create(manifest)
        except Conflict:
            live = self._kube.get(SAVEPOINTS, self._job.namespace, effect.name)
        found = facts.savepoint(live)
        if effect.status and found and found.status.phase is SavepointPhase.PENDING:
            self._write_savepoint(live, effect.status)

    def _write_savepoint(self, live: Manifest, status: SavepointStatus) -> None:
        found = facts.savepoint(live)
        if found is None or found.status != status:
            self._kube.replace_status(SAVEPOINTS, {**live, "status": as_written(status)})

    def _merge(self, resource: Resource, name: str, patch: Manifest) -> None:
        self._kube.merge(resource, self._job.namespace, name, patch)

    def _delete(
        self,
        resource: Resource,
        name: str,
        *,
        uid: str | None = None,
        grace_seconds: int | None = None,
    ) -> None:
        """Gone already, or another one by now: both are what was wanted."""
        self._tools.memory.forget_same(self._job.uid, resource.kind, name)
        with suppress(NotFound, Conflict):
            self._kube.delete(
                resource, self._job.namespace, name, uid=uid, grace_seconds=grace_seconds
            )


def set_finalizer(
    kube: Kube, resource: Resource, manifest: Manifest, finalizer: str, *, present: bool
) -> Manifest | None:
    """Of the very version that was seen; None when it is so already, or the object is gone."""
    metadata = manifest["metadata"]
    standing = metadata.get("finalizers", [])
    if (finalizer in standing) is present:
        return None
    others = [f for f in standing if f != finalizer]
    patch = {
        "metadata": {
            "resourceVersion": metadata["resourceVersion"],
            "finalizers": [*others, finalizer] if present else others,
        }
    }
    with suppress(NotFound):
        return kube.merge(resource, metadata["namespace"], metadata["name"], patch)
    return None


def _text(job: Job) -> str:
    return f"{job.namespace}/{job.name}"
