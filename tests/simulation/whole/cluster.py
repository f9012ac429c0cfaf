"""The cluster of the operator's simulation, with pods in which the real thing runs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.simulation.operator.cluster import Cluster, PodObject
from tests.simulation.operator.code import Code
from tests.simulation.whole.oracles import JobOracles
from tests.simulation.whole.process import OWNER, Connection, CoordinatorProcess
from tests.simulation.whole.programs import Programs, graph_of
from tests.simulation.whole.storage import job_storage
from tests.simulation.whole.truth import Truth
from tests.simulation.whole.workers import Ground, PodWorker, Site

from penstock.checkpoint import restore
from penstock.cli.check import _of_the_job
from penstock.core.errors import Corrupt, PenstockError, Rejected
from penstock.runtime.disposing import dispose_checkpoints, dispose_savepoint
from penstock.runtime.termination import error_body
from penstock.state.schemas import is_readable
from penstock.testing.simulation.store import SimulatedStore
from penstock.testing.simulation.worker import Child
from penstock.testing.simulation.world import World
from penstock_operator.manifests import names


@dataclass(slots=True, eq=False)
class Container:
    """What runs in a worker's pod."""

    worker: PodWorker
    connection: Connection | None = None


class WholeCluster(Cluster):
    """Everything in one namespace, over the world's store."""

    def __init__(
        self,
        world: World,
        store: SimulatedStore,
        truth: Truth,
        programs: Programs,
        oracles: JobOracles,
        folder: Path,
    ) -> None:
        super().__init__(world.rng, truth, input_length=None, note=world.note)  # type: ignore[arg-type]
        self.world = world
        self.ground = Ground(world, store, programs, folder, self._children)
        self._objects = store
        self._programs = programs
        self._oracles = oracles
        self._numbers = itertools.count(1)
        self._containers: dict[str, Container] = {}
        self._disks: dict[int, tuple[str, ...]] = {}
        """Snapshots of which a volume has copies."""
        self._cut_off: list[Container] = []

    # ── coordinators ────────────────────────────────────────────────────────────────────────────

    def processes(self) -> list[CoordinatorProcess]:
        """Those that live."""
        found: list[Any] = [pod.process for pod in self.of_role("coordinator")]
        return [process for process in found if process is not None and process.is_alive]

    def answering(self) -> Any:
        """The coordinator that the Service leads to; None while nobody answers there."""
        found: Any = super().answering()
        return found if found is not None and found.has_read_log else None

    def _run_coordinator(self, pod: PodObject) -> None:
        process: Any = pod.process
        if process is None:
            if not pod.is_deleting and not self._is_late():
                pod.process = self._start_process(pod)  # type: ignore[assignment]
        elif not process.is_alive:
            if self.rng.random() < 0.5:
                self.kill_process(pod)
        elif not pod.is_ready and process.has_read_log and not self._is_late():
            pod.is_ready = True
            self.changed()

    def _start_process(self, pod: PodObject) -> CoordinatorProcess:
        return CoordinatorProcess(
            self.world,
            self._objects,
            self._programs.of(self.records[pod.revision].spec),
            name=f"C{next(self._numbers)}",
            revision=pod.revision,
            won=self._oracles.check_won,
        )

    def kill_process(self, pod: PodObject) -> None:
        process: Any = pod.process
        if process is not None:
            process.die()
        super().kill_process(pod)

    def pause(self, pod: PodObject, duration_ms: int) -> None:
        """Its process stands still for some time."""
        process: Any = pod.process
        if process is not None:
            self.note(f"{process.name} stands still")
            process.pause(duration_ms)

    # ── nodes ───────────────────────────────────────────────────────────────────────────────────

    def lose_node(self, pod: PodObject) -> None:
        """The pod is deleted by force, and what ran in it goes on for a while, cut off from the cluster."""
        self.note(f"the node of {pod.name} is lost")
        process: Any = pod.process
        container = self._containers.pop(pod.uid, None)
        duration_ms = self.rng.randrange(60_000)
        if process is not None:
            pod.process = None
            process.pause(duration_ms)
            self.world.after(duration_ms + 60_000, process.die)
            for connection in process.connections():
                self.world.soon(partial(process.disconnect, connection), at_most_ms=30_000)
        if container is not None:
            self._cut_off.append(container)
            if container.connection is not None:
                connection = container.connection
                cut = partial(connection.process.disconnect, connection)
                self.world.soon(cut, at_most_ms=30_000)
            self.world.after(duration_ms, partial(self._node_ends, container))
        self._remove_pod(pod)

    def _node_ends(self, container: Container) -> None:
        self._cut_off.remove(container)
        container.worker.crash()

    # ── workers ─────────────────────────────────────────────────────────────────────────────────

    def kill_worker(self, pod: PodObject) -> None:
        """Its container ends, and is started again."""
        container = self._containers.get(pod.uid)
        if container is not None:
            self.note(f"the process of {pod.name} is killed")
            self._end(pod)
            pod.restarts += 1

    def lose_connection(self, pod: PodObject) -> None:
        """The network between a worker and its coordinator."""
        container = self._containers.get(pod.uid)
        if container is not None and container.connection is not None:
            self.note(f"{pod.name} loses its connection")
            container.connection.process.disconnect(container.connection)

    def raise_once(self, pod: PodObject) -> None:
        """The author's code raises, as good code does now and then."""
        container = self._containers.get(pod.uid)
        if container is not None and container.worker.child is not None:
            self.note(f"the author's code raises in {pod.name}")
            container.worker.child.fail("the author's code raised, once")

    def _run_worker(self, pod: PodObject) -> None:
        container = self._containers.get(pod.uid)
        if container is None:
            container = self._containers[pod.uid] = Container(self._worker(pod))
        container.worker.second()
        leader = self.answering()
        if container.connection is not None or leader is None or pod.is_deleting:
            return
        if self._is_late():
            return

        def ended() -> None:
            container.connection = None
            if pod.is_ready:
                pod.is_ready = False
                self.changed()

        container.connection = leader.connect(container.worker, ended)
        if container.connection is not None:
            pod.is_ready = True
            self.changed()

    def _worker(self, pod: PodObject) -> PodWorker:
        assert pod.ordinal is not None, pod
        site = Site(self.ground, self.records[pod.revision].spec)
        return PodWorker(site, pod.ordinal, pod.revision, self._disks.get(pod.ordinal, ()))

    def _end(self, pod: PodObject) -> None:
        container = self._containers.pop(pod.uid, None)
        if container is None or pod.ordinal is None:
            return
        self._disks[pod.ordinal] = container.worker.copies
        container.worker.crash()
        if container.connection is not None:
            container.connection.process.disconnect(container.connection)

    def _children(self) -> Iterator[Child]:
        for container in [*self._containers.values(), *self._cut_off]:
            if container.worker.child is not None:
                yield container.worker.child

    # ── pods ────────────────────────────────────────────────────────────────────────────────────

    def _remove_pod(self, pod: PodObject) -> None:
        process: Any = pod.process
        if process is not None:
            process.die()
        self._end(pod)
        super()._remove_pod(pod)

    def _claims_controller(self) -> None:
        super()._claims_controller()
        for ordinal in self._disks.keys() - self.claims.keys():
            del self._disks[ordinal]

    def _verdict(self, pod: PodObject, code: Code) -> dict[str, Any]:
        """As `penstock check -o json` says it."""
        url = None
        spec = self.records[pod.revision].spec
        try:
            found = None
            if pod.against is not None:
                found = _of_the_job(job_storage(self._objects), pod.against)
            if found is not None:
                url, manifest = found
                restore.verify(
                    manifest,
                    graph_of(code),
                    parallelism=spec.parallelism,
                    max_parallelism=spec.max_parallelism,
                    is_readable=is_readable,
                )
        except (Rejected, Corrupt) as e:
            return {"fits": False, **error_body(e), "snapshot": url, "startsEmpty": []}
        except PenstockError as e:
            return error_body(e)
        return {
            "fits": True,
            "what": "it fits",
            "where": None,
            "fix": None,
            "exitCode": 0,
            "snapshot": url,
            "startsEmpty": [],
        }

    def _dispose(self, pod: PodObject) -> None:
        """As `penstock dispose` does it."""
        storage = job_storage(self._objects)
        try:
            if pod.purpose == names.ALL_CHECKPOINTS:
                nonce = f"dispose-{self.ground.uuid()}"
                now_ms = self.world.now_ms
                done = dispose_checkpoints(
                    storage, owner=OWNER, adopt=False, nonce=nonce, at_ms=now_ms
                )
            else:
                done = dispose_savepoint(storage, pod.purpose)
        except PenstockError as e:
            pod.verdict = error_body(e)
        else:
            pod.verdict = {"disposed": True, "what": "done", "path": done.path, "exitCode": 0}
