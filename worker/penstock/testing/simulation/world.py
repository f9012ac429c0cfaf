"""Time, chance and the trace of one simulated run."""

from __future__ import annotations

import hashlib
import heapq
import random
from collections.abc import Callable


class World:
    """Fake time in milliseconds, and the only source of randomness."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.rng = random.Random(seed)
        self.now_ms = 0
        self.trace: list[str] = []
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0

    def another_rng(self, name: str) -> random.Random:
        """One whose use changes nothing of what else happens in this seed."""
        return random.Random(f"{self._seed} {name}")

    def after(self, delay_ms: int, act: Callable[[], None]) -> None:
        """Do something later; what is due at the same time happens in the order it was asked for."""
        self._count += 1
        heapq.heappush(self._queue, (self.now_ms + max(0, delay_ms), self._count, act))

    def soon(self, act: Callable[[], None], *, at_most_ms: int) -> None:
        """Do something after a random delay, mostly a short one."""
        self.after(int(at_most_ms * self.rng.random() ** 3), act)

    def chance(self, probability: float) -> bool:
        """Whether it happens this time."""
        return self.rng.random() < probability

    def run(self, *, until: Callable[[], bool], deadline_ms: int) -> bool:
        """Let time pass until it is so; False when the deadline came first."""
        while self._queue and not until():
            at, _, act = heapq.heappop(self._queue)
            if at > deadline_ms:
                return False
            self.now_ms = max(self.now_ms, at)
            act()
        return until()

    def note(self, text: str) -> None:
        """Add a line to the trace."""
        self.trace.append(f"{self.now_ms:>7} {text}")

    @property
    def digest(self) -> str:
        """What two runs of one seed agree on."""
        return hashlib.sha256("\n".join(self.trace).encode()).hexdigest()


class Link:
    """One direction of a connection: in order, each message late by some time, none after its end.

    `doubles` is how often a message arrives a second time, seconds after the first.
    """

    def __init__(
        self,
        world: World,
        deliver: Callable[[object], None],
        *,
        delay_ms: int,
        doubles: float = 0.0,
    ) -> None:
        self._world = world
        self._deliver = deliver
        self._delay_ms = delay_ms
        self._doubles = doubles
        self._last_ms = 0
        self.is_open = True

    def send(self, message: object) -> None:
        """Send a message, which arrives unless the link ends first."""
        world = self._world
        at = max(self._last_ms, world.now_ms + int(self._delay_ms * world.rng.random() ** 3))
        self._last_ms = at
        world.after(at - world.now_ms, lambda: self._arrive(message))
        if world.chance(self._doubles):
            again = at - world.now_ms + world.rng.randrange(3_000)
            world.after(again, lambda: self._arrive(message))

    def close(self) -> None:
        """Lose what is on its way."""
        self.is_open = False

    def _arrive(self, message: object) -> None:
        if self.is_open:
            self._deliver(message)
