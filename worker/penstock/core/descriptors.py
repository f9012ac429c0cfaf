"""State descriptors as plain data: what the graph, the manifest and the compatibility check read."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class StateKind(StrEnum):
    """The string is in every manifest: never change one."""

    VALUE = "value"
    LIST = "list"
    MAP = "map"
    REDUCING = "reducing"
    AGGREGATING = "aggregating"
    SPLIT_LIST = "split-list"
    UNION_LIST = "union-list"


KEYED_KINDS = frozenset(
    {StateKind.VALUE, StateKind.LIST, StateKind.MAP, StateKind.REDUCING, StateKind.AGGREGATING}
)


@dataclass(frozen=True, slots=True)
class StateDescriptor:
    """Name, kind and serialized type of one piece of state.

    `serializer` is the format's name and version (`msgpack/1`); `schema` the type as the serializer
    describes it (`int`, `list[float]`, `weblog.Request{host: str, …}`); `sub_schema` that of a
    map's keys. Names are unique per operator.
    """

    name: str
    kind: StateKind
    serializer: str
    schema: str
    sub_schema: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As it stands in a manifest."""
        body: dict[str, Any] = {
            "name": self.name,
            "kind": self.kind.value,
            "serializer": self.serializer,
            "schema": self.schema,
        }
        if self.sub_schema is not None:
            body["subSchema"] = self.sub_schema
        return body

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> StateDescriptor:
        """The inverse of to_json()."""
        return cls(
            name=body["name"],
            kind=StateKind(body["kind"]),
            serializer=body["serializer"],
            schema=body["schema"],
            sub_schema=body.get("subSchema"),
        )
