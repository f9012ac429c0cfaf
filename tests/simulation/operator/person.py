"""Whoever writes StreamJobs: at any time, back and forth, without waiting for what was asked before."""

from __future__ import annotations

import random
from typing import Any

from tests.simulation.operator.cluster import (
    EPOCH,
    JOB,
    Cluster,
    SavepointObject,
    StreamJobObject,
)
from tests.simulation.operator.code import BAD, GOOD
from tests.simulation.operator.store import Entry

from penstock.spec.orders import restore_id_of
from penstock_operator.resources.names import (
    ANNOTATION_CHECKPOINT,
    ANNOTATION_DELETION,
    ANNOTATION_RECONCILE,
    ANNOTATION_RESTART,
    ANNOTATION_RETRY,
    ANNOTATION_SAVEPOINT,
    DELETION_FORCE,
    RECONCILE_PAUSED,
)
from penstock_operator.resources.status import SavepointSpec


class Person:
    """What they want at the moment, and what they allowed."""

    def __init__(self, cluster: Cluster, rng: random.Random) -> None:
        self.cluster = cluster
        self.rng = rng
        self.requests: set[str] = set()
        """What a savepoint was asked for by."""
        self.disposed: set[str] = set()
        """Paths that may be gone."""
        self.applies_at: int | None = None
        self._granted: set[str] = set()
        self._deletes_state = False
        self._images = 1
        self._ids = 0
        self.spec: dict[str, Any] = {
            "image": f"{GOOD}:1",
            "entrypoint": "words:job",
            "parallelism": rng.randrange(1, 4),
            "checkpoints": {"storage": "s3://bucket/checkpoints"},
            "upgrade": {
                "mode": rng.choice(("Savepoint", "Savepoint", "LastState")),
                "holdCommits": rng.random() < 0.8,
                "timeout": "3m",
            },
            "rescale": {"cooldown": "20s", "timeout": "2m"},
            "deletion": {
                "policy": rng.choice(("Savepoint", "Retain", "Delete")),
                "timeout": "3m",
            },
            "worker": {"volume": {"whenScaledDown": rng.choice(("Delete", "Retain"))}},
        }
        if rng.random() < 0.05:
            self.spec["image"] = self._image(rng.choice(BAD[:-1]))

    # ── what they allow ─────────────────────────────────────────────────────────────────────────

    def allows_rewind(self, entry: Entry) -> bool:
        """Whether output may be written again by this opening."""
        before = self.cluster.store.newest
        is_deleted = before is not None and before.end is not None and before.end.deletes
        if is_deleted and self._deletes_state:
            return True
        is_obeyed = before is not None and before.restore_id == entry.restore_id
        return entry.restore_id in self._granted and not is_obeyed

    # ── what they do ────────────────────────────────────────────────────────────────────────────

    def apply(self) -> None:
        """Write the StreamJob as it is wanted; made if there is none."""
        cluster = self.cluster
        spec, _, _ = cluster.read(self.spec)
        if spec is not None and spec.restore.from_ != "Latest":
            self._grant_restore(spec)
        if cluster.job is None:
            cluster.job = StreamJobObject(cluster.uid("job"), self._copy())
            cluster.note(f"applied: {self.spec}")
        elif cluster.job.spec != self.spec:
            cluster.job.spec = self._copy()
            cluster.job.generation += 1
            cluster.job.version += 1
            cluster.note(f"edited: {self.spec}")
        cluster.changed()

    def _grant_restore(self, spec: Any) -> None:
        restore = spec.restore
        self._granted.add(restore_id_of(restore))
        named = self.cluster.savepoints.get(restore.from_)
        if named is not None and named.status.path is not None:
            path = named.status.path
            self._granted.add(restore_id_of(restore.model_copy(update={"from_": path})))

    def _copy(self) -> dict[str, Any]:
        return {k: dict(v) if isinstance(v, dict) else v for k, v in self.spec.items()}

    def annotate(self, name: str, value: str | None) -> None:
        """Set an annotation, or take it away."""
        job = self.cluster.job
        if job is None:
            return
        if value is None:
            job.annotations.pop(name, None)
        else:
            job.annotations[name] = value
        job.version += 1
        self.cluster.note(f"annotated: {name}={value}")
        self.cluster.changed()

    def delete(self) -> None:
        """Delete the StreamJob."""
        cluster = self.cluster
        job = cluster.job
        if job is None or job.deleted_at is not None:
            return
        cluster.note("deleted")
        spec, _, _ = cluster.read(job.spec)
        if spec is not None and spec.deletion.policy == "Delete":
            self._deletes_state = True
        if job.finalizers:
            job.deleted_at = cluster.now
            job.version += 1
            job.generation += 1
        else:
            cluster.job = None
        cluster.changed()

    def act(self) -> None:
        """One of the things that people do."""
        cluster, rng = self.cluster, self.rng
        if cluster.job is None:
            if rng.random() < 0.5:
                self.apply()
            return
        wish = rng.randrange(27)
        match wish:
            case 0 | 1 | 2 | 3:
                self.spec["image"] = self._image(GOOD)
            case 4 | 5 | 6:
                self.spec["image"] = self._image(rng.choice(BAD))
            case 7:
                self.spec["image"] = f"{GOOD}:{rng.randrange(1, self._images + 1)}"
            case 8 | 9 | 10 | 11:
                self.spec["parallelism"] = rng.randrange(1, 5)
            case 12 | 13:
                self.spec["desiredState"] = rng.choice(("Running", "Suspended"))
            case 14:
                self.spec["checkpoints"] = self.spec["checkpoints"] | {
                    "interval": f"{rng.randrange(5, 20)}s"
                }
            case 15:
                self._wish_restore()
            case 16 | 17:
                self._ask_by_annotation()
            case 18:
                self._ids += 1
                self.annotate(rng.choice((ANNOTATION_RESTART, ANNOTATION_RETRY)), f"r{self._ids}")
            case 19:
                self.annotate(ANNOTATION_RECONCILE, rng.choice((RECONCILE_PAUSED, None)))
            case 20 | 21:
                self._create_savepoint()
            case 22:
                self._delete_savepoint()
            case 23:
                self.spec["deletion"] = self.spec["deletion"] | {
                    "policy": rng.choice(("Savepoint", "Retain", "Delete"))
                }
            case 24:
                self.spec["upgrade"] = self.spec["upgrade"] | {
                    "mode": rng.choice(("Savepoint", "LastState")),
                    "holdCommits": rng.random() < 0.8,
                }
            case 25:
                self.delete()
                if rng.random() < 0.2:
                    self.annotate(ANNOTATION_DELETION, DELETION_FORCE)
                return
            case _:
                self._make_a_mistake()
                return
        if cluster.job.deleted_at is None:
            self.apply()

    def _image(self, kind: str) -> str:
        self._images += 1
        return f"{kind}:{self._images}"

    def _make_a_mistake(self) -> None:
        job = self.cluster.job
        if job is not None and job.deleted_at is None:
            job.spec = self._copy() | {"entrypoint": "no such thing"}
            job.generation += 1
            job.version += 1
            self.cluster.note("edited: a mistake")
            self.cluster.changed()

    def _wish_restore(self) -> None:
        """Latest, a savepoint by path or name; all knowing that output may be repeated."""
        paths = sorted(self.cluster.store.savepoints)
        names = sorted(
            s.name for s in self.cluster.savepoints.values() if s.status.phase == "Completed"
        )
        choice = self.rng.choice(("Latest", *paths, *names))
        self.spec["restore"] = {"from": choice, "allowOlder": True}

    def _ask_by_annotation(self) -> None:
        if self.rng.random() < 0.7:
            self._ids += 1
        name = self.rng.choice((ANNOTATION_SAVEPOINT, ANNOTATION_SAVEPOINT, ANNOTATION_CHECKPOINT))
        job = self.cluster.job
        assert job is not None, name
        if name == ANNOTATION_SAVEPOINT:
            self.requests.add(f"{job.uid}/{self._ids}")
        self.annotate(name, f"id-{self._ids}")

    def _create_savepoint(self) -> None:
        cluster = self.cluster
        self._ids += 1
        name = f"mine-{self._ids}"
        spec = SavepointSpec(job_name=JOB, dispose_on_delete=self.rng.random() < 0.5)
        cluster.savepoints[name] = SavepointObject(
            name, cluster.uid("savepoint"), spec, {}, cluster.now
        )
        self.requests.add(name)
        cluster.note(f"Savepoint {name} is created")
        cluster.changed()

    def _delete_savepoint(self) -> None:
        cluster = self.cluster
        if not cluster.savepoints:
            return
        found = cluster.savepoints[self.rng.choice(sorted(cluster.savepoints))]
        cluster.note(f"Savepoint {found.name} is deleted")
        if found.spec.dispose_on_delete and found.status.path is not None:
            self.disposed.add(found.status.path)
        if found.status.phase != "Completed" or not self._has_receipt(found):
            self.requests.add(f"once more {found.uid}")  # its annotation may stand
        if found.finalizers:
            found.deleted_at = found.deleted_at or cluster.now
        else:
            del cluster.savepoints[found.name]
        cluster.changed()

    def _has_receipt(self, savepoint: SavepointObject) -> bool:
        """Whether nobody looks for it any more: one that was asked for by annotation is until then."""
        job = self.cluster.job
        receipt = job.status.requests.get("savepoint") if job is not None else None
        is_told = receipt is not None and receipt.path == savepoint.status.path
        return ANNOTATION_SAVEPOINT not in savepoint.annotations or is_told

    def last_wish(self) -> str:
        """What they want in the end; one word about it."""
        rng, cluster = self.rng, self.cluster
        self.annotate(ANNOTATION_RECONCILE, None)
        wish = rng.choice(
            ("new", "new", "bad", "scale", "same", "suspend", "delete", "namespace", "savepoint")
        )
        if cluster.job is not None and cluster.job.deleted_at is not None:
            return "delete" if rng.random() < 0.5 else wish
        self.spec["desiredState"] = "Running"
        match wish:
            case "new":
                self.spec["image"] = self._image(GOOD)
            case "bad":
                self.spec["image"] = self._image(rng.choice(BAD))
            case "scale":
                self.spec["image"] = self._image(GOOD)
                self.spec["parallelism"] = rng.randrange(1, 5)
            case "suspend":
                self.spec["desiredState"] = "Suspended"
            case "savepoint":
                self._create_savepoint()
            case _:
                pass
        self.apply()
        return wish

    def second(self) -> int:
        """Seconds since all began."""
        return int((self.cluster.now - EPOCH).total_seconds())
