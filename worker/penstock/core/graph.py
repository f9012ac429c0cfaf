"""The job graph as plain data: operators and edges as the author wrote them, without functions.

`job()` runs in every process; each builds the same graph, and a worker whose graph differs from the
coordinator's is refused with the first difference.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from penstock.core.descriptors import StateDescriptor
from penstock.core.ids import OperatorId


class Exchange(StrEnum):
    """How records get from one operator's subtasks to the next one's."""

    FORWARD = "forward"
    HASH = "hash"
    REBALANCE = "rebalance"


@dataclass(frozen=True, slots=True)
class Edge:
    """Records of `source` (or of its side output) that go to `target`."""

    source: OperatorId
    target: OperatorId
    exchange: Exchange
    side: str | None = None


@dataclass(frozen=True, slots=True)
class Operator:
    """A node. `kind` is the author's verb (`source`, `flat_map`, `count`, `process`, `sink`).

    `parallelism` is None for the job's own. `label` shows the function (`words`), `location` the
    author's line (`wordcount.py:17`), `note` what the graph view adds (`replayable`).
    `key` shows the key function, `key_schema` the declared key type of a keyed operator.
    """

    id: OperatorId
    kind: str
    label: str = ""
    location: str = ""
    uid: bool = False
    parallelism: int | None = None
    record_schema: str | None = None
    key: str | None = None
    key_schema: str | None = None
    states: tuple[StateDescriptor, ...] = ()
    side_outputs: tuple[str, ...] = ()
    note: str = ""

    @property
    def is_keyed(self) -> bool:
        """Whether its input is partitioned by key."""
        return self.key is not None


@dataclass(frozen=True, slots=True)
class JobGraph:
    """Operators in the order the author made them, which is a topological one."""

    name: str
    operators: tuple[Operator, ...]
    edges: tuple[Edge, ...]

    def operator(self, id: OperatorId) -> Operator:
        """The operator of that id."""
        return next(o for o in self.operators if o.id == id)

    def inputs(self, id: OperatorId) -> list[Edge]:
        """The edges into an operator."""
        return [e for e in self.edges if e.target == id]

    def outputs(self, id: OperatorId) -> list[Edge]:
        """The edges out of an operator, side outputs too."""
        return [e for e in self.edges if e.source == id]

    def to_json(self) -> dict[str, Any]:
        """For REST, `penstock graph -o json`, and the digest."""
        return {
            "name": self.name,
            "operators": [_operator_json(o) for o in self.operators],
            "edges": [
                {
                    "source": e.source,
                    "target": e.target,
                    "exchange": e.exchange.value,
                    "side": e.side,
                }
                for e in self.edges
            ],
        }

    @property
    def digest(self) -> str:
        """What two processes compare; where the job lies on disk is not part of it."""
        body = self.to_json()
        body.pop("name")
        canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


def first_difference(mine: dict[str, Any], other: dict[str, Any]) -> str | None:
    """A sentence about the first place where two graphs (as JSON) differ; None when they agree.

    Like the digest it leaves out the job's name.
    """
    for noun, name in (("operators", _operator_name), ("edges", _edge_name)):
        for a, b in zip(mine[noun], other[noun], strict=False):
            if a != b:
                return f"{name(a)}: {_field_that_differs(a, b)}"
        count_mine, count_other = len(mine[noun]), len(other[noun])
        if count_mine != count_other:
            longer, side = (mine, "here") if count_mine > count_other else (other, "there")
            return f"{name(longer[noun][min(count_mine, count_other)])} exists only {side}"
    return None


def _operator_name(body: dict[str, Any]) -> str:
    return f"operator {body['id']} ({body['kind']})"


def _edge_name(body: dict[str, Any]) -> str:
    return f"edge {body['source']} → {body['target']}"


def _field_that_differs(mine: dict[str, Any], other: dict[str, Any]) -> str:
    field = next(k for k in {**mine, **other} if mine.get(k) != other.get(k))
    return f"{field} is {mine.get(field)!r} here and {other.get(field)!r} there"


def _operator_json(o: Operator) -> dict[str, Any]:
    return {
        "id": o.id,
        "kind": o.kind,
        "label": o.label,
        "location": o.location,
        "uid": o.uid,
        "parallelism": o.parallelism,
        "recordSchema": o.record_schema,
        "key": o.key,
        "keySchema": o.key_schema,
        "states": [s.to_json() for s in o.states],
        "sideOutputs": list(o.side_outputs),
        "note": o.note,
    }
