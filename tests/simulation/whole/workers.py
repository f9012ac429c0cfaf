"""Workers as pods have them: the job simulator's supervisor with its production mailbox, in a container
that runs one version of the author's code."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.simulation.operator.code import Code
from tests.simulation.whole.programs import Programs

from penstock.checkpoint import effects as do
from penstock.core.chains import Chain
from penstock.core.ids import AttemptNumber, ChannelId, SubtaskId, WorkerId
from penstock.runtime.program import Program
from penstock.spec.streamjob import StreamJobSpec
from penstock.testing.simulation.job import GRAPH
from penstock.testing.simulation.outside import Violation
from penstock.testing.simulation.store import SimulatedStore
from penstock.testing.simulation.tasks import Channel
from penstock.testing.simulation.worker import Child, Worker
from penstock.testing.simulation.world import World

TURNS_MS = (150, 500)


@dataclass(slots=True)
class Ground:
    """What all workers of the job share: the network between them, and names. `children` are those
    that live."""

    world: World
    store: SimulatedStore
    programs: Programs
    folder: Path
    children: Callable[[], Iterable[Child]]
    declines: float = 0.0
    _channels: dict[tuple[AttemptNumber, ChannelId], Channel] = field(default_factory=dict)
    _uuids: int = 0

    def uuid(self) -> str:
        """Never the same twice."""
        self._uuids += 1
        return f"{self._uuids:06}"

    def channel(self, attempt: AttemptNumber, name: ChannelId) -> Channel:
        """One channel of an attempt, the same for both its ends; older attempts' are forgotten."""
        if (attempt, name) not in self._channels:
            for key in [key for key in self._channels if key[0] < attempt - 2]:
                del self._channels[key]
            self._channels[attempt, name] = Channel(self.world, name)
        return self._channels[attempt, name]

    def close_channels(self, attempt: AttemptNumber, subtasks: dict[SubtaskId, Chain]) -> None:
        """A child died: its channels are lost, and its peers notice after a while."""
        for key, channel in self._channels.items():
            if key[0] == attempt and _touches(key[1], subtasks):
                channel.close()
        for child in self.children():
            if child.is_alive and child.attempt == attempt:
                self.world.soon(partial(child.fail, "a channel was lost"), at_most_ms=1_000)


@dataclass(slots=True)
class Site:
    """A pod's own view of the ground: the version of the code is its image's."""

    ground: Ground
    spec: StreamJobSpec
    turns_ms: tuple[int, int] = TURNS_MS

    @property
    def world(self) -> World:
        return self.ground.world

    @property
    def store(self) -> SimulatedStore:
        return self.ground.store

    @property
    def folder(self) -> Path:
        return self.ground.folder

    @property
    def declines(self) -> float:
        return self.ground.declines

    def uuid(self) -> str:
        return self.ground.uuid()

    def program(self) -> Program:
        return self.ground.programs.of(self.spec)

    def channel(self, attempt: AttemptNumber, name: ChannelId) -> Channel:
        return self.ground.channel(attempt, name)

    def close_channels(self, attempt: AttemptNumber, subtasks: dict[SubtaskId, Chain]) -> None:
        self.ground.close_channels(attempt, subtasks)


class PodWorker(Worker):
    """A worker of one revision; its code may raise."""

    def __init__(self, site: Site, ordinal: int, revision: str, copies: tuple[str, ...]) -> None:
        super().__init__(site, WorkerId(ordinal))
        self.revision = revision
        self.copies = copies
        self._code = Code(site.spec.image or "")
        self._ran_s = 0

    def second(self) -> None:
        """A second passes; the author's code raises when it is one that does."""
        child = self.child
        if child is None or not child.runs:
            self._ran_s = 0
            return
        self._ran_s += 1
        if self._code.crashes(ran_s=self._ran_s, completed=int(child.has_completed)):
            child.fail("the author's code raised")

    def _prepare(self, prepare: do.Prepare) -> None:
        attempt = prepare.attempt
        if not prepare.commit_only and attempt.revision != self.revision:
            raise Violation(
                f"worker {self.id} with code {self.revision} joins attempt {attempt.number} "
                f"of {attempt.revision}"
            )
        super()._prepare(prepare)
        if self._code.fails_to_restore and self.child is not None and not prepare.commit_only:
            self.child.fail("the author's code raised while it restored")


def _touches(name: ChannelId, subtasks: dict[SubtaskId, Chain]) -> bool:
    edge = GRAPH.edges[name.edge]
    return any(
        (edge.target == chain.head and name.target == subtask.index)
        or (edge.source in chain.operators and name.source == subtask.index)
        for subtask, chain in subtasks.items()
    )
