"""What the builder collects: operators with their functions, from which the graph (without them) and
the running chains are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from penstock.core.descriptors import KEYED_KINDS, StateDescriptor, StateKind
from penstock.core.errors import Rejected
from penstock.core.graph import Edge, Exchange, JobGraph, Operator
from penstock.core.ids import OperatorId, is_uid
from penstock.core.snapshots import OWN_SERIALIZER, SINK_PENDING
from penstock.dataflow import describe
from penstock.dataflow.connector import Sink, Source
from penstock.dataflow.states import SideOutput, State, declared
from penstock.state.serializers import serializer_for

SOURCE_POSITION = "position"
SOURCE_KNOWN = "known"
END_EMITTED = "emitted"
"""Operator state of the runtime's own: where a source reads, which files it knows, which key groups
have given their results at the end of input; `core.snapshots.SINK_PENDING` is a sink's."""


@dataclass(frozen=True, slots=True)
class Output:
    """One output of an operator: its main one, or a side output."""

    operator: OperatorId
    side: str | None = None


@dataclass(frozen=True, slots=True)
class KeyBy:
    """How a keyed operator's input is partitioned; `type` is None when it must be observed."""

    fn: Callable[[Any], Any]
    type: Any = None


@dataclass(slots=True)
class Node:
    """An operator with what it runs: a function, a Function, a Source or a Sink."""

    id: OperatorId
    kind: str
    runs: Any
    inputs: tuple[Output, ...] = ()
    exchange: Exchange = Exchange.FORWARD
    uid: bool = False
    parallelism: int | None = None
    key: KeyBy | None = None
    record_type: Any = None
    label: str = ""
    location: str = ""
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def shown(self) -> str:
        """For errors: `parse (map, weblog.py:22)`."""
        inside = ", ".join(part for part in (self.kind, self.location) if part)
        return f"{self.id if self.uid else self.label or self.id} ({inside})"

    def states(self) -> dict[str, State]:
        """The state that its function declares."""
        return declared(self.runs, State) if self.kind not in _STATELESS else {}

    def side_outputs(self) -> dict[str, SideOutput[Any]]:
        """The side outputs that its function declares."""
        return declared(self.runs, SideOutput) if self.kind not in _STATELESS else {}

    def descriptors(self) -> tuple[StateDescriptor, ...]:
        """All its state, the runtime's own too, by name."""
        found = [state.descriptor() for state in self.states().values()]
        if isinstance(self.runs, Source):
            schema = self.runs.split_schema
            found.append(_own(SOURCE_POSITION, StateKind.SPLIT_LIST, schema))
            found.append(_own(SOURCE_KNOWN, StateKind.UNION_LIST, schema))
        elif isinstance(self.runs, Sink):
            found.append(_own(SINK_PENDING, StateKind.UNION_LIST, self.runs.pending_schema))
        elif getattr(self.runs, "emits_at_end", False):
            found.append(_own(END_EMITTED, StateKind.UNION_LIST, "KeyGroupRange v1"))
        return tuple(sorted(found, key=lambda d: d.name))

    def check(self) -> None:
        """Refuse what cannot run: keyed state without a key, one state under two names."""
        for name, state in self.states().items():
            if state.name != name:
                raise Rejected(
                    f"{type(self.runs).__name__} has one state object as {name} and as {state.name}",
                    where=self.shown,
                    fix="make an object for each: state is stored under its attribute's name",
                )
            if state.kind in KEYED_KINDS and self.key is None:
                raise Rejected(
                    f"{type(self.runs).__name__} declares keyed state ({name}), but its input has no key",
                    where=self.shown,
                    fix="put .key_by(…) before .process(…)",
                )


_STATELESS = frozenset({"map", "flat_map", "filter", "of_type", "map_batches", "source", "sink"})


def _own(name: str, kind: StateKind, schema: str) -> StateDescriptor:
    return StateDescriptor(name=name, kind=kind, serializer=OWN_SERIALIZER, schema=schema)


def check_uid(uid: str, kind: str, location: str) -> None:
    """Refuse a uid that could not be part of a file name, a metric or a URL."""
    if not isinstance(uid, str) or not is_uid(uid):
        raise Rejected(
            f"uid {uid!r} is not allowed",
            where=f"{kind}, {location}",
            fix="use 1 to 63 of a-z, 0-9 and -, not beginning or ending with -",
        )


def graph_of(name: str, nodes: list[Node]) -> JobGraph:
    """The graph without functions, as manifests, REST and other processes see it."""
    operators: list[Operator] = []
    edges: list[Edge] = []
    for node in nodes:
        operators.append(
            Operator(
                id=node.id,
                kind=node.kind,
                label=node.label,
                location=node.location,
                uid=node.uid,
                parallelism=node.parallelism,
                record_schema=describe.type_text(node.record_type),
                key=None if node.key is None else describe.label(node.key.fn),
                key_schema=None
                if node.key is None or node.key.type is None
                else serializer_for(node.key.type).schema,
                states=node.descriptors(),
                side_outputs=tuple(sorted(node.side_outputs())),
                note=_note(node),
            )
        )
        edges.extend(
            Edge(source=i.operator, target=node.id, exchange=node.exchange, side=i.side)
            for i in node.inputs
        )
    return JobGraph(name=name, operators=tuple(operators), edges=tuple(edges))


def _note(node: Node) -> str:
    if isinstance(node.runs, Source):
        return "replayable" if node.runs.replayable else "not replayable"
    if isinstance(node.runs, Sink):
        return "exactly-once" if node.runs.exactly_once else "at-least-once"
    return "at the end of input" if getattr(node.runs, "emits_at_end", False) else ""
