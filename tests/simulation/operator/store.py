"""What outlives every process: the job's log, its snapshots, and what its sinks have written.

A job is one source and one sink. A record is a number, state is how far the source was read, and a
transaction is an interval of records; so output is exact when the committed intervals meet end to end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum

RETAINED = 3
ROOT = "s3://bucket/job"
SAVEPOINTS = "s3://bucket/savepoints"


class Violation(AssertionError):
    """Something that must never happen did."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """Records `start` to `stop`, pre-committed by a checkpoint."""

    name: str
    checkpoint: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """State at `position`, and the transactions that count on it. `schema` is the code's that wrote it."""

    id: int
    path: str
    position: int
    schema: str
    pending: tuple[Transaction, ...] = ()


@dataclass(frozen=True, slots=True)
class Hold:
    """Nothing above `after` is committed."""

    from_: Snapshot
    after: int
    stable: int


class EndKind(StrEnum):
    """How a run ended."""

    STOPPED = "Stopped"
    CANCELLED = "Cancelled"
    FINISHED = "Finished"


@dataclass(frozen=True, slots=True)
class End:
    """`savepoint` is the path that a stop publishes. `deletes`: nothing is kept."""

    kind: EndKind
    go_on_from: Snapshot | None
    committed: bool = False
    savepoint: str | None = None
    deletes: bool = False


@dataclass(frozen=True, slots=True)
class Rescale:
    """A change of parallelism; firm with the first checkpoint after it."""

    request_id: str
    former: int
    parallelism: int
    is_firm: bool = False
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the log: the whole small truth."""

    seq: int
    kind: str
    request_id: str | None
    attempt: int
    revision: str
    parallelism: int
    next_checkpoint: int
    restored_from: Snapshot | None
    retained: tuple[Snapshot, ...] = ()
    hold: Hold | None = None
    end: End | None = None
    restore_id: str | None = None
    rescale: Rescale | None = None

    @property
    def point(self) -> Snapshot | None:
        """What the next attempt starts from."""
        if self.end is not None:
            return self.end.go_on_from
        own = [s for s in self.retained if s.id >= self.next_checkpoint]
        return max(own, key=lambda s: s.id, default=self.restored_from)

    @property
    def kept(self) -> frozenset[str]:
        """Paths of what must stay whole."""
        held = self.hold.from_ if self.hold else None
        return frozenset(s.path for s in (*self.retained, self.point, held) if s is not None)

    def follows(self, kind: str, **changes: object) -> Entry:
        """The next entry, which repeats this one but for the changes."""
        return replace(self, seq=self.seq + 1, kind=kind, **changes)  # type: ignore[arg-type]


@dataclass(slots=True)
class Output:
    """What sinks committed: by name, and where the next one has to begin."""

    names: set[str] = field(default_factory=set)
    stop: int = 0

    def left(self, transactions: Iterable[Transaction]) -> list[Transaction]:
        """Those that are not committed yet."""
        return [t for t in transactions if t.name not in self.names]

    def commit(self, transaction: Transaction) -> None:
        """Once, whoever asks."""
        if transaction.name in self.names:
            return
        if transaction.start < self.stop:
            raise Violation(f"written twice: {transaction} after {self.stop}")
        if transaction.start > self.stop:
            raise Violation(f"records {self.stop} to {transaction.start} were never written")
        self.names.add(transaction.name)
        self.stop = transaction.stop


class Store:
    """One job's folder. `allows_rewind` says whether a person wanted output to be written again."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self.newest: Entry | None = None
        self.savepoints: dict[str, Snapshot] = {}
        self.output = Output()
        self.allows_rewind: Callable[[Entry], bool] = lambda _: False
        self.watch: list[Callable[[Entry], None]] = []
        self.taken: dict[str, int] = {}
        """How many savepoints were completed for a request."""
        self._note = note
        self._numbers = 0

    def next_checkpoint(self) -> int:
        """A number that was never used."""
        self._numbers += 1
        return self._numbers

    @property
    def highest_checkpoint(self) -> int:
        """The greatest number used."""
        return self._numbers

    def append(self, seen: Entry | None, entry: Entry) -> bool:
        """Whether the entry won its number: only for who has seen the newest."""
        if self.newest is not seen:
            return False
        if entry.kind == "opened":
            self._check_opening(entry)
        self.newest = entry
        self._note(f"log: {entry.seq} {entry.kind} attempt {entry.attempt} of {entry.revision}")
        for watch in self.watch:
            watch(entry)
        return True

    def publish(self, path: str, snapshot: Snapshot) -> None:
        """Create a savepoint's manifest, if absent."""
        if path not in self.savepoints:
            self.savepoints[path] = replace(snapshot, path=path)
            self.taken[path] = self.taken.get(path, 0) + 1
            self._note(f"savepoint {path} at {snapshot.position}")

    def dispose(self, path: str) -> None:
        """Delete a savepoint."""
        if self.savepoints.pop(path, None) is not None:
            self._note(f"savepoint {path} disposed of")

    def find(self, path: str) -> Snapshot | None:
        """A snapshot by its path: a savepoint, or a checkpoint that the log keeps."""
        if path in self.savepoints:
            return self.savepoints[path]
        entry = self.newest
        if entry is None:
            return None
        held = entry.hold.from_ if entry.hold else None
        known = (*entry.retained, entry.point, held)
        return next((s for s in known if s is not None and s.path == path), None)

    def _check_opening(self, entry: Entry) -> None:
        point, output = entry.restored_from, self.output
        position = point.position if point else 0
        left = output.left(point.pending) if point else []
        begins = left[0].start if left else position
        if begins == output.stop:
            return
        name = point.path if point else "nothing"
        if not self.allows_rewind(entry):
            raise Violation(
                f"attempt {entry.attempt} of {entry.revision} starts from {name} at {begins}, "
                f"output goes to {output.stop}"
            )
        self._note(f"output is written again from {begins} instead of {output.stop}")
        output.stop = begins
