"""State as the author declares and uses it: one class is both the descriptor and the handle.

`count = ValueState(int, default=0)` on a function class (or assigned in `__init__`) declares; while
a record is processed the runtime puts the current key's cell (`penstock.state.cells`) under the same
name into the instance's `__dict__`, so that `self.count.value` is a plain attribute. The cells have
these classes' methods; what is written here is what answers when no key is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, NoReturn, Protocol, TypeVar, overload

from typing_extensions import TypeForm

from penstock.core.descriptors import StateDescriptor, StateKind
from penstock.core.errors import Rejected
from penstock.dataflow.aggregate import Aggregate, accumulator_type
from penstock.state.cells import StateSpec
from penstock.state.serializers import ValueSerializer, serializer_for

T = TypeVar("T")
V = TypeVar("V")
K = TypeVar("K")
In = TypeVar("In")
Out = TypeVar("Out")


class Serializer(Protocol[T]):
    """An author's own format of values; its name and version stand in every manifest."""

    name: str
    version: int

    def encode(self, value: T, /) -> bytes:
        """The value as bytes."""
        ...

    def decode(self, data: bytes, version: int, /) -> T:
        """The value, written by this or an earlier version."""
        ...


class State:
    """Base of everything a function can declare as state."""

    kind: StateKind
    name: str = ""
    """Set when the function's class is made, or when the graph is built."""
    serializer: ValueSerializer
    sub_serializer: ValueSerializer | None = None

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def descriptor(self) -> StateDescriptor:
        """As it stands in the graph and in manifests."""
        return StateDescriptor(
            name=self.name,
            kind=self.kind,
            serializer=self.serializer.name,
            schema=self.serializer.schema,
            sub_schema=None if self.sub_serializer is None else self.sub_serializer.schema,
        )

    def spec(self) -> StateSpec:
        """As the cells of its keys need it."""
        return StateSpec(
            name=self.name,
            kind=self.kind,
            serializer=self.serializer,
            sub_serializer=self.sub_serializer,
            default=getattr(self, "default", None),
            reduce=getattr(self, "reduce", None),
            aggregate=getattr(self, "aggregate", None),
        )

    def _no_key(self) -> NoReturn:
        raise Rejected(
            f"state {self.name or '(unnamed)'} has no key here",
            where=f"{type(self).__name__}",
            fix="use it inside process(), where a record and its key are at hand",
        )


class ValueState(State, Generic[V]):
    """One value per key: `count = ValueState(int, default=0)`. Without a default it may be None.

    Giving it its default (or None) clears it: `exists()` says whether it differs from that.
    """

    kind = StateKind.VALUE

    @overload
    def __init__(
        self: ValueState[T],
        type: TypeForm[T],
        *,
        default: T,
        serializer: Serializer[T] | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self: ValueState[T | None], type: TypeForm[T], *, serializer: Serializer[T] | None = None
    ) -> None: ...
    def __init__(
        self, type: Any, *, default: Any = None, serializer: Serializer[Any] | None = None
    ) -> None:
        self.serializer = serializer_for(type, custom=serializer)
        self.default = default
        if default is not None and not self.serializer.accepts(default):
            raise Rejected(
                f"the default {default!r} is not of the declared type {self.serializer.schema}",
                where="ValueState",
                fix="give a default of that type, or none at all",
            )

    @property
    def value(self) -> V:
        """The current key's value."""
        self._no_key()

    @value.setter
    def value(self, value: V, /) -> None:
        self._no_key()

    def exists(self) -> bool:
        """Whether the key has a value other than the default."""
        self._no_key()

    def clear(self) -> None:
        """Back to the default."""
        self._no_key()


class ListState(State, Generic[T]):
    """A list per key. Appending does not read it."""

    kind = StateKind.LIST

    def __init__(self, type: TypeForm[T]) -> None:
        self.serializer = serializer_for(type)

    def append(self, item: T, /) -> None:
        """Add one item at the end."""
        self._no_key()

    def extend(self, items: Iterable[T], /) -> None:
        """Add items at the end."""
        self._no_key()

    def replace(self, items: Iterable[T], /) -> None:
        """These items, and no others."""
        self._no_key()

    def clear(self) -> None:
        """Make it empty."""
        self._no_key()

    def __iter__(self) -> Iterator[T]:
        self._no_key()

    def __bool__(self) -> bool:
        self._no_key()


class MapState(State, Generic[K, V]):
    """A dict per key, without len(): counting entries would read them all."""

    kind = StateKind.MAP

    def __init__(self, key: TypeForm[K], value: TypeForm[V], /) -> None:
        self.sub_serializer = serializer_for(key)
        self.serializer = serializer_for(value)

    def __getitem__(self, key: K, /) -> V:
        self._no_key()

    def __setitem__(self, key: K, value: V, /) -> None:
        self._no_key()

    def __delitem__(self, key: K, /) -> None:
        self._no_key()

    def __contains__(self, key: object, /) -> bool:
        self._no_key()

    def __iter__(self) -> Iterator[K]:
        self._no_key()

    def __bool__(self) -> bool:
        self._no_key()

    @overload
    def get(self, key: K, /) -> V | None: ...
    @overload
    def get(self, key: K, default: V | T, /) -> V | T: ...
    def get(self, key: K, default: Any = None, /) -> Any:
        """The entry of a map key, or the default."""
        self._no_key()

    @overload
    def pop(self, key: K, /) -> V: ...
    @overload
    def pop(self, key: K, default: V | T, /) -> V | T: ...
    def pop(self, key: K, *default: Any) -> Any:
        """Remove an entry and return it."""
        self._no_key()

    def update(self, items: Mapping[K, V], /) -> None:
        """Set several entries."""
        self._no_key()

    def keys(self) -> Iterator[K]:
        """The map keys, in the order of their bytes; entries may be deleted meanwhile."""
        self._no_key()

    def values(self) -> Iterator[V]:
        """The entries' values, in the order of their keys' bytes."""
        self._no_key()

    def items(self) -> Iterator[tuple[K, V]]:
        """The entries, in the order of their keys' bytes."""
        self._no_key()

    def clear(self) -> None:
        """Make it empty."""
        self._no_key()


class ReducingState(State, Generic[T]):
    """Folds what is added into one value of the same type."""

    kind = StateKind.REDUCING

    def __init__(self, type: TypeForm[T], reduce: Callable[[T, T], T], /) -> None:
        self.serializer = serializer_for(type)
        self.reduce = reduce

    def add(self, item: T, /) -> None:
        """Fold one item in."""
        self._no_key()

    @property
    def value(self) -> T | None:
        """What was folded so far, None before the first."""
        self._no_key()

    def clear(self) -> None:
        """Forget it."""
        self._no_key()


class AggregatingState(State, Generic[In, Out]):
    """Folds what is added into an accumulator, and gives the aggregate's result."""

    kind = StateKind.AGGREGATING

    def __init__(self, aggregate: Aggregate[In, Any, Out], /) -> None:
        self.aggregate = aggregate
        type_, custom = accumulator_type(aggregate)
        self.serializer = serializer_for(type_, custom=custom)

    def add(self, item: In, /) -> None:
        """Fold one item in."""
        self._no_key()

    @property
    def value(self) -> Out:
        """The result of what was folded so far."""
        self._no_key()

    def clear(self) -> None:
        """Forget it."""
        self._no_key()


class SplitListState(ListState[T]):
    """Operator state; its items are divided evenly over the subtasks on restore."""

    kind = StateKind.SPLIT_LIST


class UnionListState(ListState[T]):
    """Operator state; every subtask gets all items on restore."""

    kind = StateKind.UNION_LIST


class SideOutput(Generic[T]):
    """A second output of a function: `again = SideOutput(Request)`, `self.again.emit(record)`."""

    name: str = ""

    def __init__(self, type: TypeForm[T]) -> None:
        self.record_type = type

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def emit(self, record: T, /) -> None:
        """Send a record to those who read this output."""
        raise Rejected(
            f"side output {self.name or '(unnamed)'} goes nowhere here",
            where="SideOutput.emit",
            fix="use it inside process()",
        )


D = TypeVar("D")


def declared(function: object, kind: type[D]) -> dict[str, D]:
    """What a function declares of one kind (State, SideOutput), by name: class first, then instance.

    Names are set for what was assigned in `__init__`.
    """
    found: dict[str, D] = {}
    for cls in reversed(type(function).__mro__):
        found.update({k: v for k, v in vars(cls).items() if isinstance(v, kind)})
    for name, value in getattr(function, "__dict__", {}).items():
        if isinstance(value, kind):
            value.name = name  # type: ignore[attr-defined]
            found[name] = value
    return found
