"""One function under test: one subtask of it, on a real backend, with the test's own clock."""

from __future__ import annotations

import copy
import shutil
import tempfile
import weakref
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Literal, NoReturn, Self, TypeAlias, TypeVar, cast

from penstock.core.descriptors import KEYED_KINDS
from penstock.core.errors import Rejected
from penstock.core.ids import OperatorId
from penstock.core.keygroups import KeyGroupRange
from penstock.core.keys import encode_key
from penstock.core.rows import group_width, row_prefix
from penstock.dataflow import describe
from penstock.dataflow.functions import KeyedFunction, SnapshotContext, SupportsProcess
from penstock.dataflow.nodes import KeyBy, Node
from penstock.dataflow.states import SideOutput, State, declared
from penstock.runtime.failures import UserError, with_place
from penstock.runtime.functions import begin_function, calling, keyed_specs
from penstock.runtime.stages import KeyedStage, ProcessStage
from penstock.state.backend import BackendFactory, KeyedBackend, LocalPart
from penstock.state.heap import open_heap
from penstock.state.keyed import KeyedStates
from penstock.testing.checked import CheckedCell, checked

K = TypeVar("K")
T = TypeVar("T")
U = TypeVar("U")
S = TypeVar("S")
Out = TypeVar("Out")
BackendName: TypeAlias = Literal["heap", "rocksdb"]

START = datetime(2000, 1, 1, tzinfo=UTC)
_MAX_PARALLELISM = 128
_GROUPS = KeyGroupRange(0, _MAX_PARALLELISM)
_CAPACITY_KEYS = 1 << 30


def harness(
    fn: SupportsProcess[K, T, Out], /, *, start: datetime = START, backend: BackendName = "heap"
) -> Harness[K, T, Out]:
    """A harness around a function; `start` is what its clock shows first.

    Raises:
        Rejected: `start` has no time zone, or the function declares what cannot be.
    """
    return Harness(fn, start=start, backend=backend)


class Harness(Generic[K, T, Out]):
    """One subtask of one function on a real backend, with the test's clock.

    Values go through their serializer on every read and write, and a value that was read and
    changed but not written back is an error that says so. What the author's code raises comes out
    as it is, with the operator, the record and the key as a note.
    """

    def __init__(
        self, fn: SupportsProcess[K, T, Out], *, start: datetime, backend: BackendName
    ) -> None:
        if start.tzinfo is None:
            raise Rejected(
                f"start={start} has no time zone",
                where="testing.harness",
                fix="give it one: datetime(2025, 5, 17, tzinfo=UTC)",
            )
        is_keyed = isinstance(fn, KeyedFunction) or any(
            state.kind in KEYED_KINDS for state in declared(fn, State).values()
        )
        self._node = Node(
            id=OperatorId("function"),
            kind="process",
            runs=fn,
            key=KeyBy(lambda record: record) if is_keyed else None,
            label=type(fn).__name__,
            location=describe.location(fn),
        )
        self._node.check()
        self._pristine = _untouched(fn)
        self._now = start
        self._backend: BackendName = backend
        self._folder = Path(tempfile.mkdtemp(prefix="penstock-harness-"))
        self._cleanup = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._opened = 0
        self._out: list[Out] = []
        self._sides: dict[str, list[Any]] = {}
        self._keys: dict[bytes, K] = {}
        self._begin(None, ())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
        /,
    ) -> None:
        self._end()
        self._cleanup()

    # ── what happens to the function ─────────────────────────────────────────────────────────────

    def send(self, record: T, /, *, key: K) -> list[Out]:
        """Process one record under a key (None for a function without keys); what comes out.

        Raises:
            Rejected: state was changed but not written back, or is not of its declared type.
        """
        try:
            if self._states is None:
                self._stage([record])
            else:
                for cell in self._cells(key):
                    cell.look_away()
                cast("KeyedStage", self._stage).handle([key], [record])
        except UserError as e:
            _raise(e)
        self._see_changes(key)
        return self._taken()

    def advance(self, by: timedelta, /) -> list[Out]:
        """Let time pass on the function's clock; what comes out by that."""
        if by < timedelta(0):
            raise Rejected(f"time does not go back, by {by}", where="Harness.advance")
        self._now += by
        return self._taken()

    def end_of_input(self) -> list[Out]:
        """No record follows; what comes out by that."""
        states = self._states
        if states is not None and getattr(self._stage.function, "emits_at_end", False):
            self._write_back(states)
            try:
                for group in _GROUPS:
                    cast("KeyedStage", self._stage).finish_group(group)
            except UserError as e:
                _raise(e)
        return self._taken()

    def restart(self, *, backend: Literal["same"] | BackendName = "same") -> None:
        """Snapshot, throw away, restore: what a crash does to the function.

        Attributes that are not state are as they were when the harness was made.
        """
        lists, parts = self._snapshot()
        self._end()
        if backend != "same":
            self._backend = backend
        self._begin(lists, parts)

    # ── what a test looks at ─────────────────────────────────────────────────────────────────────

    @property
    def now(self) -> datetime:
        """What the function's clock shows."""
        return self._now

    def state(self, state: S, /, *, key: K) -> S:
        """The handle of a declared state at a key (None for operator state), to read and write."""
        assert isinstance(state, State), state
        name = state.name
        if name in self._lists:
            return cast("S", self._lists[name])
        if self._states is None or name not in self._states.names:
            raise Rejected(
                f"{self._node.label} declares no state {name or '(unnamed)'}",
                where="Harness.state",
                fix=f"declared are: {', '.join(self._node.states()) or 'none'}",
            )
        at = self._states.names.index(name)
        return cast("S", self._cells(key)[at])

    def keys(self) -> set[K]:
        """The keys that have any state now."""
        states = self._states
        if states is None:
            return set()
        self._write_back(states)
        width = group_width(_MAX_PARALLELISM)
        found = set()
        for data, key in self._keys.items():
            row = row_prefix(states.group_of(key), data, width=width)
            if any(next(states.backend.scan(name, row), None) for name in states.names):
                found.add(key)
        return found

    def side(self, output: SideOutput[U], /) -> list[U]:
        """What was emitted to a side output since this was last asked."""
        if output.name not in self._sides:
            raise Rejected(
                f"{self._node.label} declares no side output {output.name or '(unnamed)'}",
                where="Harness.side",
                fix=f"declared are: {', '.join(self._sides) or 'none'}",
            )
        records = self._sides[output.name][:]
        self._sides[output.name].clear()
        return records

    # ── inside ───────────────────────────────────────────────────────────────────────────────────

    def _begin(
        self, lists: dict[str, tuple[bytes, ...]] | None, parts: Iterable[LocalPart]
    ) -> None:
        node = copy.copy(self._node)
        node.runs = _untouched(self._pristine)
        try:
            begun = begin_function(
                node, subtask=0, parallelism=1, now_ms=self._now_ms, stored=lists
            )
        except UserError as e:
            _raise(e)
        self._lists = begun.lists
        self._states: KeyedStates | None = None
        self._stage: ProcessStage
        if node.key is None:
            self._stage = ProcessStage(node, begun.function, begun.context)
        else:
            backend = self._open_backend()
            backend.restore(parts)
            self._states = states = KeyedStates(
                backend,
                keyed_specs(node),
                groups=_GROUPS,
                max_parallelism=_MAX_PARALLELISM,
                capacity=_CAPACITY_KEYS,
            )
            states.classes = [checked(cls) for cls in states.classes]
            self._stage = KeyedStage(node, begun.function, begun.context, states)
        self._stage.down = self._out.extend
        for name in self._stage.side_names:
            self._stage.side_downs[name] = self._sides.setdefault(name, []).extend

    def _end(self) -> None:
        with calling(self._node):
            self._stage.close()
        if self._states is not None:
            self._states.backend.close()

    def _open_backend(self) -> KeyedBackend:
        self._opened += 1
        folder = self._folder / str(self._opened)
        folder.mkdir()
        factory: BackendFactory = open_heap
        if self._backend == "rocksdb":
            # Only a test that asks for RocksDB loads it.
            from penstock.state.rocks import open_rocks

            factory = open_rocks
        return factory(folder, groups=_GROUPS, max_parallelism=_MAX_PARALLELISM, options={})

    def _snapshot(self) -> tuple[dict[str, tuple[bytes, ...]], list[LocalPart]]:
        hook = getattr(self._stage.function, "snapshot_state", None)
        if hook is not None:
            hook(SnapshotContext.beside(self._stage.context))
        lists = {name: state.snapshot() for name, state in self._lists.items()}
        states = self._states
        if states is None:
            return lists, []
        states.freeze()
        while not states.write_slice():
            pass
        copied = states.copy_out(self._folder / f"snapshot-{self._opened}")
        states.copied_out()
        part = LocalPart(copied.format, _GROUPS, _GROUPS, copied.path, offsets=copied.offsets)
        return lists, [part]

    def _cells(self, key: K) -> list[CheckedCell]:
        states = self._states
        assert states is not None, "a function without keys has no cells"
        (lookup,) = states.bind([key])
        self._keys.setdefault(encode_key(key), key)
        return [table[lookup] for table in states.cells]

    def _see_changes(self, key: K) -> None:
        if self._states is None:
            return
        for name, cell in zip(self._states.names, self._cells(key), strict=True):
            if cell.forgotten():
                raise Rejected(
                    f"{name} was changed but not written back",
                    where=f"{self._node.label}.process, key {key!r}",
                    fix=f"what a state gives is a copy: change it, then give it back to {name}",
                )

    @staticmethod
    def _write_back(states: KeyedStates) -> None:
        while states.write_back():
            pass

    def _taken(self) -> list[Out]:
        out = self._out[:]
        self._out.clear()
        return out

    def _now_ms(self) -> int:
        return round(self._now.timestamp() * 1000)


def _untouched(fn: Any) -> Any:
    """A copy that shares no attribute with the function, but for its declarations."""
    shared = {id(d): d for d in (*declared(fn, State).values(), *declared(fn, SideOutput).values())}
    try:
        return copy.deepcopy(fn, shared)
    except TypeError:  # something in it cannot be copied: a lock, a connection
        return copy.copy(fn)


def _raise(error: UserError) -> NoReturn:
    raise with_place(error) from None
