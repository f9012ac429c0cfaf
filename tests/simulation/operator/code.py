"""What a version of the author's code does, by the name of its image."""

from __future__ import annotations

from dataclasses import dataclass

from tests.simulation.operator.store import Snapshot

GOOD, CRASHES, CRASHES_LATE, CANNOT_RESTORE, DIES, MISSING, INCOMPATIBLE = (
    "good",
    "crashes",
    "crashes-late",
    "cannot-restore",
    "dies",
    "missing",
    "incompatible",
)
BAD = (CRASHES, CRASHES_LATE, CANNOT_RESTORE, DIES, MISSING, INCOMPATIBLE)


@dataclass(frozen=True, slots=True)
class Code:
    """An image, `<what it does>:<number>`."""

    image: str

    @property
    def kind(self) -> str:
        """What it does."""
        return self.image.partition(":")[0]

    @property
    def is_good(self) -> bool:
        """Whether it runs and can go on from what others wrote."""
        return self.kind == GOOD

    @property
    def can_be_pulled(self) -> bool:
        """Whether there is such an image."""
        return self.kind != MISSING

    @property
    def worker_dies(self) -> bool:
        """Whether a worker's container ends at once."""
        return self.kind == DIES

    def crashes(self, *, ran_s: int, completed: int) -> bool:
        """Whether it raises by now: before its first checkpoint, or just after."""
        most_s = {CRASHES: 4, CRASHES_LATE: 14}.get(self.kind)
        return most_s is not None and (completed > 0 or ran_s > most_s)

    @property
    def fails_to_restore(self) -> bool:
        """Whether it raises before a record flows."""
        return self.kind == CANNOT_RESTORE

    @property
    def schema(self) -> str:
        """How it writes state."""
        return self.kind if self.kind == INCOMPATIBLE else "common"

    def reads(self, snapshot: Snapshot | None) -> bool:
        """Whether it can go on from there."""
        return snapshot is None or snapshot.schema == self.schema
