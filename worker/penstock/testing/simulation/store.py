"""The simulated object store: late, forgetful about outcomes, never wrong about what it holds."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from penstock.checkpoint.log import (
    Get,
    List,
    PutIfAbsent,
    StoreAnswer,
    StoreRequest,
    Unknown,
)
from penstock.checkpoint.retention import Listed
from penstock.testing.simulation.world import World

CHECKPOINTS = ""
SAVEPOINTS = "sim://savepoints"
RETRY_MS = 200


@dataclass(frozen=True, slots=True)
class Put:
    """Create or replace an object. Answer: True or Unknown."""

    path: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete objects in this order. Answer: True or Unknown."""

    paths: tuple[str, ...]


Request: TypeAlias = StoreRequest | Put | Delete
T = TypeVar("T")


class SimulatedStore:
    """Objects by path; savepoints lie under `SAVEPOINTS`, everything else is relative.

    `faults` is the share of requests whose outcome is not told, `slow` that of uploads which take
    seconds. `watch` sees every change as it
    happens.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.objects: dict[str, bytes] = {}
        self.modified_ms: dict[str, int] = {}
        self.faults = 0.0
        self.slow = 0.0
        self.delay_ms = 20
        self.watch: list[Callable[[str, str], None]] = []

    def request(self, request: Request, reply: Callable[[StoreAnswer], None]) -> None:
        """Carry out a request some time from now; the reply comes later still, or says Unknown.

        A request whose outcome is not told may have happened, happen much later, or never.
        """
        world = self._world

        def serve() -> None:
            if not world.chance(self.faults):
                answer = self.do(request)
                world.soon(lambda: reply(answer), at_most_ms=self.delay_ms)
                return
            kind = world.rng.randrange(3)
            if kind == 0:
                self.do(request)
            elif kind == 1 and not isinstance(request, (Get, List)):
                world.note(f"store: {_name(request)} hangs")
                world.after(world.rng.randrange(20_000), lambda: self._do_late(request))
            world.note(f"store: outcome of {_name(request)} unknown")
            world.soon(lambda: reply(Unknown()), at_most_ms=20 * self.delay_ms)

        is_slow = isinstance(request, Put) and world.chance(self.slow)
        world.soon(serve, at_most_ms=6_000 if is_slow else self.delay_ms)

    def listing(self, prefix: str) -> list[Listed]:
        """What is there now, without delay or doubt: for the checks."""
        return [
            Listed(path, len(data), self.modified_ms[path])
            for path, data in sorted(self.objects.items())
            if path.startswith(prefix)
        ]

    def _do_late(self, request: Request) -> None:
        self._world.note(f"store: {_name(request)} arrives late")
        self.do(request)

    def do(self, request: Request) -> StoreAnswer:
        """Carry out a request at once, whose outcome is told."""
        match request:
            case PutIfAbsent(path, data):
                if path in self.objects:
                    return False
                self._write(path, data)
                return True
            case Put(path, data):
                self._write(path, data)
                return True
            case Get(path):
                return self.objects.get(path)
            case List(prefix):
                return {p: len(d) for p, d in self.objects.items() if p.startswith(prefix)}
            case Delete(paths):
                for path in paths:
                    if self.objects.pop(path, None) is not None:
                        self._changed("delete", path)
                return True

    def _write(self, path: str, data: bytes) -> None:
        self.objects[path] = data
        self.modified_ms[path] = self._world.now_ms
        self._changed("put", path)

    def _changed(self, what: str, path: str) -> None:
        self._world.note(f"store: {what} {path}")
        for watch in self.watch:
            watch(what, path)


def drive(
    store: SimulatedStore,
    world: World,
    steps: Generator[StoreRequest, StoreAnswer, T],
    done: Callable[[T], None],
    guard: Callable[[Callable[[], None]], None],
) -> None:
    """Run one of the log's generators over the store.

    `guard` is given each continuation and decides when it happens: later, for someone who is paused;
    never, for the dead.
    """

    def step(answer: StoreAnswer, *, is_first: bool = False) -> None:
        try:
            request = next(steps) if is_first else steps.send(answer)
        except StopIteration as stop:
            done(stop.value)
            return
        store.request(request, lambda a: guard(lambda: after(a)))

    def after(answer: StoreAnswer) -> None:
        if isinstance(answer, Unknown):
            world.after(RETRY_MS, lambda: guard(lambda: step(answer)))
        else:
            step(answer)

    step(None, is_first=True)


def _name(request: Request) -> str:
    match request:
        case Delete(paths):
            return f"delete {' '.join(paths)}"
        case List(prefix):
            return f"list {prefix}"
        case Put(path) | PutIfAbsent(path) | Get(path):
            return f"{type(request).__name__} {path}"
