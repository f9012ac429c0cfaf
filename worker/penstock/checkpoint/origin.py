"""Where an ordered start takes its state from, and what it may do about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from penstock.core.ids import OperatorId
from penstock.core.log import SnapshotRef
from penstock.core.manifest import Manifest


class Origin(StrEnum):
    """What a start begins from; `penstock.spec.orders` has the same words."""

    LOG = "Log"
    RESTORE = "Restore"
    EMPTY = "Empty"
    HOLD = "Hold"


@dataclass(frozen=True, slots=True)
class RestoreFrom:
    """A snapshot that a person named; without `snapshot` the job starts empty."""

    snapshot: SnapshotRef | None = None
    manifest: Manifest | None = None


@dataclass(frozen=True, slots=True)
class RestoreRules:
    """`rename` is old uid → new uid; `allow_non_restored` lets state without a taker be left behind.

    `allow_empty`: a job whose snapshots are gone starts empty. `allow_older`: from an older one, when
    the newest is damaged, although output is then repeated.
    """

    rename: Mapping[OperatorId, OperatorId] = field(default_factory=dict)
    allow_non_restored: bool = False
    allow_empty: bool = False
    allow_older: bool = False

    def to_json(self) -> dict[str, Any]:
        """What of it the restored attempt must know, too: as it stands in its opening entry."""
        how: dict[str, Any] = {}
        if self.rename:
            how["rename"] = dict(self.rename)
        if self.allow_non_restored:
            how["allowNonRestored"] = True
        return how
