"""Stateful functions, and the context they see. A function is a class with one method."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self

from typing_extensions import TypeVar

from penstock.core.errors import Rejected
from penstock.dataflow.states import State

S = TypeVar("S")
K_co = TypeVar("K_co", covariant=True, default=Any)
K_contra = TypeVar("K_contra", contravariant=True)
T_contra = TypeVar("T_contra", contravariant=True)
Out_co = TypeVar("Out_co", covariant=True)


class Counter:
    """A number that only grows, shown beside the operator's own figures."""

    def __init__(self) -> None:
        self.total = 0

    def add(self, n: int = 1) -> None:
        """Count n more."""
        self.total += n


class Context(Generic[K_co]):
    """One object per subtask, moved from record to record: do not keep it."""

    if TYPE_CHECKING:

        @property
        def key(self) -> K_co:
            """The current record's key."""
            ...

    def __init__(
        self,
        function: object,
        *,
        subtask: int,
        parallelism: int,
        now_ms: Callable[[], int],
        log: logging.Logger,
    ) -> None:
        self._function = function
        self._now_ms = now_ms
        self._log = log
        self.subtask = subtask
        """Which of the operator's subtasks this is, from 0."""
        self.parallelism = parallelism
        """How many subtasks the operator has."""
        self.counters: dict[str, Counter] = {}

    def __getattr__(self, name: str) -> Any:
        if name == "key":
            raise Rejected(
                "there is no current key here",
                where=type(self._function).__name__,
                fix="use ctx.key inside process() of a function after key_by",
            )
        raise AttributeError(name)

    @classmethod
    def beside(cls, other: Context[Any]) -> Self:
        """A context of another class for the same subtask."""
        return cls(
            other._function,
            subtask=other.subtask,
            parallelism=other.parallelism,
            now_ms=other._now_ms,
            log=other._log,
        )

    @property
    def now(self) -> datetime:
        """Processing time from the runtime's clock (a fake one in tests)."""
        return datetime.fromtimestamp(self._now_ms() / 1000, UTC)

    @property
    def log(self) -> logging.Logger:
        """A logger whose lines appear with the job's."""
        return self._log

    def counter(self, name: str) -> Counter:
        """The counter of that name, made on first use."""
        return self.counters.setdefault(name, Counter())

    def state(self, declared: S, /) -> S:
        """The handle of a state that this function declares; for helpers outside the class."""
        assert isinstance(declared, State), declared
        handle = getattr(self._function, declared.name, None)
        if handle is None:
            raise Rejected(
                f"{type(self._function).__name__} declares no state {declared.name or '(unnamed)'}",
                where="ctx.state",
                fix="declare it as an attribute of the function's class, or in its __init__",
            )
        return handle  # type: ignore[no-any-return]


class RestoreContext(Context[None]):
    """What `initialize_state` sees."""

    is_restored: bool = False
    """Whether there was state to restore, as opposed to a fresh start."""


class SnapshotContext(Context[None]):
    """What `snapshot_state` sees."""

    checkpoint_id: int = 0


class SupportsProcess(Protocol[K_contra, T_contra, Out_co]):
    """What `.process` takes. Types come from the author's method, said once, nowhere else."""

    def process(self, record: T_contra, ctx: Context[K_contra], /) -> Iterable[Out_co] | None:
        """Handle one record; yield or return an iterable of results, or None."""
        ...


class Function:
    """Base of stateful functions.

    State and side outputs are its attributes, on the class or assigned in `__init__`; operator
    state is bound when `initialize_state` is called, keyed state while a record is processed.
    """

    def open(self, ctx: Context[None]) -> None:
        """Called once before the first record."""

    def close(self) -> None:
        """Called once after the last record, also when the job failed."""

    def initialize_state(self, ctx: RestoreContext) -> None:
        """Called before `open`, on a fresh start and on restore."""

    def snapshot_state(self, ctx: SnapshotContext) -> None:
        """Called at every barrier, before operator state is copied."""


class KeyedFunction(Function):
    """Base of functions after `key_by`."""
