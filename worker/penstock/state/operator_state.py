"""Operator state: lists that belong to a subtask, not to a key. They live in memory on every backend."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from penstock.core.errors import Rejected
from penstock.state.serializers import ValueSerializer


class OperatorList:
    """One subtask's list; how it is divided on restore (split, union) is its descriptor's matter."""

    def __init__(self, name: str, serializer: ValueSerializer, stored: Iterable[bytes]) -> None:
        self._name = name
        self._serializer = serializer
        self._items: list[Any] = [serializer.decode(item) for item in stored]

    def append(self, item: Any) -> None:
        """Add one item at the end."""
        self._items.append(self._checked(item))

    def extend(self, items: Iterable[Any]) -> None:
        """Add items at the end."""
        self._items.extend([self._checked(item) for item in items])

    def replace(self, items: Iterable[Any]) -> None:
        """These items, and no others."""
        self._items = [self._checked(item) for item in items]

    def clear(self) -> None:
        """Make it empty."""
        self._items = []

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._items))

    def __bool__(self) -> bool:
        return bool(self._items)

    def snapshot(self) -> tuple[bytes, ...]:
        """The items, encoded one by one."""
        return tuple(self._serializer.encode(item) for item in self._items)

    def _checked(self, item: Any) -> Any:
        if not self._serializer.accepts(item):
            raise Rejected(
                f"state {self._name} is a list of {self._serializer.schema} and was given {item!r:.80} "
                f"({type(item).__name__})",
                where=f"state {self._name}",
                fix="give items of the declared type, or declare the type that is meant",
            )
        return item
