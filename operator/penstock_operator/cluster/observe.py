"""Everything about one StreamJob, gathered anew at each turn.

Fresh reads instead of caches: what a decision sees is what was there a moment ago, whatever a watch has
missed (decision 0020). The API server is asked, and the job's coordinator; the object store never.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import ValidationError

from penstock.core.errors import Rejected, Retryable
from penstock.spec.changes import revision_of
from penstock.spec.orders import JobStatus
from penstock.spec.streamjob import StreamJobSpec
from penstock_operator.cluster import facts
from penstock_operator.cluster.coordinator_client import CoordinatorClient
from penstock_operator.cluster.kube import (
    CLAIMS,
    DEPLOYMENTS,
    NAMESPACES,
    PODS,
    REVISIONS,
    SAVEPOINTS,
    STATEFUL_SETS,
    STREAM_JOBS,
    Forbidden,
    Kube,
    Resource,
)
from penstock_operator.cluster.memory import Memory
from penstock_operator.manifests import coordinator, names, workers
from penstock_operator.manifests.names import Job, Manifest, Role
from penstock_operator.manifests.record import Record
from penstock_operator.reconcile.observed import (
    JobObject,
    Observed,
    PodPhase,
    Revision,
    SavepointObject,
)
from penstock_operator.resources.names import LABEL_REVISION
from penstock_operator.resources.status import StreamJobStatus
from penstock_operator.resources.streamjob import read_spec

NO_STORAGE = "spec.checkpoints.storage: is missing; on a cluster write s3://bucket/folder"


@dataclass(frozen=True, slots=True)
class JobKey:
    """Which StreamJob; one made again under the name waits for its forerunner's turn to end."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Seen:
    """What was observed, with objects themselves: the StreamJob, whose version is what may be written
    to, its revisions as they were kept, and its workloads."""

    observed: Observed
    manifest: Manifest
    records: Mapping[str, Record]
    deployment: Manifest | None
    stateful_set: Manifest | None

    @property
    def job(self) -> Job:
        """The identity that everything is made for."""
        return Job(self.observed.job.namespace, self.observed.job.name, self.observed.job.uid)


@dataclass(frozen=True, slots=True)
class Settings:
    """What holds for all jobs of this operator: the default image, the cluster's identity, whether
    fail points are obeyed."""

    worker_image: str
    cluster: str
    fail_points: bool = False


class Observer:
    """Gathers. Safe from several threads, one per job."""

    def __init__(
        self, kube: Kube, coordinators: CoordinatorClient, memory: Memory, settings: Settings
    ) -> None:
        self._kube = kube
        self._coordinators = coordinators
        self._memory = memory
        self._settings = settings
        self._since = datetime.now(UTC)

    def observe(self, key: JobKey) -> Seen | None:
        """None when there is no such StreamJob."""
        manifest = self._kube.find(STREAM_JOBS, key.namespace, key.name)
        if manifest is None:
            return None
        uid = manifest["metadata"]["uid"]
        revisions = [
            r
            for r in self._list(REVISIONS, key, Role.REVISION)
            if facts.controller_of(r).get("uid") == uid
        ]
        records = _records(manifest, revisions)
        pods = self._kube.list(PODS, key.namespace, labels=names.selector_text(key.name))
        by_role = {role: [p for p in pods if facts.role_of(p) == role] for role in Role}
        deployment = self._find(DEPLOYMENTS, key, names.coordinator(key.name), uid)
        stateful_set = self._find(STATEFUL_SETS, key, names.worker(key.name), uid)
        claims = self._list(CLAIMS, key, Role.WORKER)
        savepoints = self._savepoints(key.namespace)
        recorded = {record.revision for _, record in records}
        job = self._job(manifest, recorded, deployment, stateful_set)
        status, unreachable = self._ask(key, deployment, by_role[Role.COORDINATOR])
        reports = [facts.report(p) for p in by_role[Role.CHECK] if not facts.is_deleting(p)]
        observed = Observed(
            job=job,
            revisions=tuple(revision for revision, _ in records),
            coordinator_workload=facts.workload(deployment),
            worker_workload=facts.workload(stateful_set),
            coordinator_pods=tuple(facts.pod(p) for p in by_role[Role.COORDINATOR]),
            worker_pods=tuple(facts.pod(p) for p in by_role[Role.WORKER]),
            claims=tuple(c for m in claims if (c := facts.claim(m, key.name))),
            coordinator=status,
            unreachable=unreachable,
            check=facts.newest(reports, job.revision),
            disposals=tuple(
                facts.report(p) for p in by_role[Role.DISPOSAL] if not facts.is_deleting(p)
            ),
            savepoints=tuple(s for s in savepoints.values() if s.spec.job_name == key.name),
            accepted=records[-1][1].model() if records else None,
            applied=next((k.model() for r, k in records if r.id == job.status.revision), None),
            watched_since=self._since,
            restore_savepoint=savepoints.get(job.spec.restore.from_) if job.spec else None,
            selector=names.selector_text(key.name, Role.WORKER),
            fail_points=self._settings.fail_points,
            refusals=self._memory.refusals(job.uid),
        )
        kept = {record.revision: record for _, record in records}
        return Seen(observed, manifest, kept, deployment, stateful_set)

    def _find(self, resource: Resource, key: JobKey, name: str, uid: str) -> Manifest | None:
        """An object of this very job; one of a forerunner with its name is on its way out."""
        found = self._kube.find(resource, key.namespace, name)
        return found if found and facts.controller_of(found).get("uid") == uid else None

    def _list(self, resource: Resource, key: JobKey, role: Role) -> list[Manifest]:
        labels = names.selector_text(key.name, role)
        return self._kube.list(resource, key.namespace, labels=labels)

    def _savepoints(self, namespace: str) -> Mapping[str, SavepointObject]:
        """By name: those of people have no label of ours."""
        found = (facts.savepoint(s) for s in self._kube.list(SAVEPOINTS, namespace))
        return {s.name: s for s in found if s is not None}

    def _job(
        self,
        manifest: Manifest,
        recorded: set[str],
        deployment: Manifest | None,
        stateful_set: Manifest | None,
    ) -> JobObject:
        metadata = manifest["metadata"]
        job = Job(metadata["namespace"], metadata["name"], metadata["uid"])
        deleted_at = facts.time_of(metadata.get("deletionTimestamp"))
        read = read_spec(manifest)
        spec, mistakes = read.spec, read.mistakes
        if spec is not None and spec.checkpoints.storage is None:
            spec, mistakes = None, (NO_STORAGE,)
        revision = revision_of(spec) if spec is not None else None
        if spec is not None and revision not in recorded and deleted_at is None:
            assert revision is not None
            if refused := self._refused(job, spec, revision, (deployment, stateful_set)):
                spec, revision, mistakes = None, None, refused
        return JobObject(
            uid=job.uid,
            namespace=job.namespace,
            name=job.name,
            generation=metadata["generation"],
            annotations=metadata.get("annotations", {}),
            finalizers=tuple(metadata.get("finalizers", ())),
            spec=spec,
            revision=revision,
            mistakes=mistakes,
            status=status_of(manifest),
            deleted_at=deleted_at,
            is_namespace_terminating=deleted_at is not None and self._is_terminating(job.namespace),
        )

    def _is_terminating(self, namespace: str) -> bool:
        found = self._kube.find(NAMESPACES, None, namespace)
        return found is None or facts.is_deleting(found)

    def _refused(
        self,
        job: Job,
        spec: StreamJobSpec,
        revision: str,
        live: tuple[Manifest | None, Manifest | None],
    ) -> tuple[str, ...]:
        """What the API server would say to the pods of a new revision."""
        if self._memory.was_tried(job.uid, revision):
            return ()
        mistakes = tuple(self._dry_run(job, spec, revision, *live))
        if not mistakes:
            self._memory.remember_tried(job.uid, revision)
        return mistakes

    def _dry_run(
        self,
        job: Job,
        spec: StreamJobSpec,
        revision: str,
        deployment: Manifest | None,
        stateful_set: Manifest | None,
    ) -> Iterator[str]:
        settings = self._settings
        record = Record.of(
            job,
            spec,
            revision,
            default_image=settings.worker_image,
            cluster=settings.cluster,
        )
        claims = workers.claim_templates(job, spec.worker.volume)
        rendered = {
            "coordinator": (
                coordinator.deployment(job, revision, record.coordinator),
                deployment,
            ),
            "worker": (
                workers.stateful_set(
                    job, revision, record.worker, replicas=spec.parallelism, claims=claims
                ),
                stateful_set,
            ),
        }
        for part, (manifest, live) in rendered.items():
            try:
                self._try(manifest, live)
            except Rejected as e:
                yield f"spec.{part}: its pods are refused by the API server: {e.what}"

    def _try(self, manifest: Manifest, live: Manifest | None) -> None:
        """Under a name that is free: one of that name may run, and must not be compared with."""
        name = manifest["metadata"].pop("name")
        manifest["metadata"]["generateName"] = f"{name}-"
        try:
            self._kube.create(manifest, dry_run=True)
        except Forbidden:
            if live is None:
                raise
            # A quota has no room for a second one; what will be done is a patch of the first.
            del manifest["metadata"]["generateName"]
            manifest["metadata"]["name"] = name
            if "volumeClaimTemplates" in manifest["spec"]:
                manifest["spec"]["volumeClaimTemplates"] = facts.claim_templates(live)
            self._kube.apply(manifest, dry_run=True)

    def _ask(
        self, key: JobKey, deployment: Manifest | None, pods: list[Manifest]
    ) -> tuple[JobStatus | None, str | None]:
        """The coordinator's status, or why there is none."""
        if deployment is None:
            return None, "there is no coordinator"
        if not any(p.get("status", {}).get("phase") == PodPhase.RUNNING for p in pods):
            return None, "no pod of the coordinator runs"
        try:
            return self._coordinators.status(key.namespace, key.name), None
        except Retryable as e:
            return None, e.what


def _records(job: Manifest, revisions: list[Manifest]) -> list[tuple[Revision, Record]]:
    """By number. One that cannot be read counts as not kept when nothing goes by it; a job that is
    deleted goes by none.

    Raises:
        Rejected: the newest, or the one in force, cannot be read.
    """
    revisions = sorted(revisions, key=lambda r: r["revision"])
    in_force = status_of(job).revision
    found = []
    for manifest in revisions:
        try:
            record = Record.read(manifest)
            record.model()
            found.append((facts.revision(manifest), record))
        except (KeyError, TypeError, ValidationError) as e:
            metadata = manifest["metadata"]
            is_in_force = metadata["labels"].get(LABEL_REVISION) == in_force
            if facts.is_deleting(job) or not (is_in_force or manifest is revisions[-1]):
                continue
            raise Rejected(
                f"the ControllerRevision {metadata['name']} cannot be read: {e}",
                where=metadata["namespace"],
                fix="run the version of the operator that made it, or delete it",
            ) from e
    return found


def status_of(manifest: Manifest) -> StreamJobStatus:
    """The status as it stands; one that cannot be read is none: it is a view, and is made again."""
    try:
        return StreamJobStatus.model_validate(manifest.get("status", {}))
    except ValidationError:
        return StreamJobStatus()
