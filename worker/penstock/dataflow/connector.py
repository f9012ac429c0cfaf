"""The port of sources and sinks: what the runtime asks of them, and nothing else.

Constructors of sources and sinks do no I/O: `job()` runs in every process. `open` makes the part
that works, one for each subtask. Adapters are in `penstock.connectors`, unaware of each other.
Everything is called from the mailbox's one thread, but `Writer.commit`, which may be called from a
helper thread; nothing blocks for long.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar, runtime_checkable

T_co = TypeVar("T_co", covariant=True)
T_contra = TypeVar("T_contra", contravariant=True)


class Quiet(Enum):
    """What a poll gives when it gives no records."""

    IDLE = "idle"
    """Nothing now; there may be more later."""
    END = "end"
    """There never will be more."""


IDLE: Final = Quiet.IDLE
END: Final = Quiet.END
Polled: TypeAlias = "Sequence[Any] | Quiet"


@dataclass(frozen=True, slots=True)
class SourceContext:
    """What a source knows of where it runs. `now_ms` is the runtime's clock; relative paths are
    taken from `folder`, the manifest's."""

    uid: str
    subtask: int
    parallelism: int
    now_ms: Callable[[], int]
    folder: Path
    warn: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class SourceState:
    """A source's part of a snapshot, each item encoded by the source, readable (JSON).

    `splits` are what this subtask is reading and where it stands: divided over the subtasks on
    restore. `known` is what every subtask must know (files seen): everyone gets all items.
    """

    splits: Sequence[bytes] = ()
    known: Sequence[bytes] = ()


class Reader(Protocol[T_co]):
    """One subtask of a source."""

    def restore(self, state: SourceState) -> None:
        """Go on from a snapshot; called once, before the first poll, and only on restore."""
        ...

    def poll(self, limit: int) -> Sequence[T_co] | Quiet:
        """Up to `limit` records (never an empty sequence), IDLE, or END; never blocks."""
        ...

    def snapshot(self) -> SourceState:
        """Where the next poll goes on."""
        ...

    def unread(self) -> bool:
        """Whether there is anything to read now: a finished job is run again only for that."""
        ...

    def position(self, index: int) -> str:
        """Where record `index` of the last batch came from, for an error (`access.log, line 7`)."""
        ...

    def close(self) -> None:
        """Give up files and connections."""
        ...


@dataclass(frozen=True, slots=True)
class Backlog:
    """What one subtask of a source knows that it still has to read: `files`, the one that it is
    reading among them, and their `bytes`, packed where they lie packed."""

    files: int
    bytes: int


@runtime_checkable
class HasBacklog(Protocol):
    """A Reader that can also tell how much there is still to read; none has to."""

    def backlog(self) -> Backlog | None:
        """At this moment, None while it is not known; asked twice a second, so it looks nowhere."""
        ...


class Source(ABC, Generic[T_co]):
    """Where records come from. `replayable`: the same records can be read again after a failure."""

    replayable: bool = True
    split_schema: str = "bytes"
    """Name and version of what a split is (`FileSplit v1`), for `penstock state ls`."""
    record_type: Any = None
    """The records' type form when it is known; None otherwise."""
    default_parallelism: int | None = None
    """Subtasks when the author names no number (1 for a socket); None: as many as the job has."""

    @abstractmethod
    def open(self, ctx: SourceContext) -> Reader[T_co]:
        """The reader of one subtask."""

    @property
    def label(self) -> str:
        """As the graph view shows it: `Files("shakespeare.txt")`."""
        return type(self).__name__


@dataclass(frozen=True, slots=True)
class SinkContext:
    """What a sink knows of where it runs.

    `transaction(n)` names the transaction of checkpoint n: unique for ever, and its beginning
    `<job>/<uid>/` is this sink's alone, so that leftovers of older attempts can be listed.
    """

    uid: str
    subtask: int
    parallelism: int
    attempt: int
    transaction: Callable[[int], str]
    now_ms: Callable[[], int]
    folder: Path
    warn: Callable[[str], None]


class Writer(Protocol[T_contra]):
    """One subtask of a sink, in two phases where it can."""

    def write(self, records: Sequence[T_contra]) -> None:
        """Take a batch; nothing is visible to readers before it is committed."""
        ...

    def prepare(self, checkpoint: int) -> Sequence[bytes]:
        """Everything written since the last call, durable, as transactions to commit later.

        Each is encoded by the sink (readable, JSON), and enough for any subtask of any later attempt
        to commit it. The next write begins a new transaction.
        """
        ...

    def commit(self, transaction: bytes) -> None:
        """Make a prepared transaction visible; doing it again changes nothing.

        Raises:
            Retryable: not now; it is called again.
        """
        ...

    def abort_except(self, transactions: Sequence[bytes]) -> None:
        """Remove what older attempts of this job left behind, but for these.

        Called once, on subtask 0, after a restore (or a fresh start, with none).
        """
        ...

    def close(self) -> None:
        """Give up files and connections; what was not prepared is thrown away."""
        ...


class Sink(ABC, Generic[T_contra]):
    """Where records go. `exactly_once`: it holds records back until their checkpoint is complete."""

    exactly_once: bool = True
    pending_schema: str = "bytes"
    """Name and version of what a transaction is (`PendingFile v1`), for `penstock state ls`."""

    @abstractmethod
    def open(self, ctx: SinkContext) -> Writer[T_contra]:
        """The writer of one subtask."""

    @property
    def label(self) -> str:
        """As the graph view shows it: `Files("out/", Json)`."""
        return type(self).__name__
