"""The keyed operators that need no class of the author's: count, reduce, aggregate.

They are functions like an author's, so that everything holds for them too; `process_batch` handles
a whole batch at once where that is faster, and must equal `process` record by record.
`emits_at_end` functions give nothing until the input ends; then `result` is asked key by key.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from penstock.dataflow.aggregate import Aggregate
from penstock.dataflow.functions import Context, KeyedFunction
from penstock.dataflow.states import AggregatingState, ReducingState, ValueState


class KeyedFold(KeyedFunction):
    """Base of the built-in ones; `emit` is "every" or "end"."""

    emits_at_end: bool

    def __init__(self, emit: str) -> None:
        self.emits_at_end = emit == "end"

    def result(self) -> Any:
        """The current key's result."""
        raise AssertionError


class Count(KeyedFold):
    """How many records each key has had."""

    total = ValueState(int, default=0)

    def process(self, record: Any, ctx: Context[Any]) -> Iterable[tuple[Any, int]] | None:
        """Count one."""
        self.total.value = total = self.total.value + 1
        return None if self.emits_at_end else ((ctx.key, total),)

    def process_batch(
        self, keys: Sequence[Any], lookups: Sequence[Any], cells: Mapping[Any, Any]
    ) -> list[tuple[Any, int]]:
        """Count a batch; `cells[lookups[i]]` is the cell of `total` for `keys[i]`."""
        if self.emits_at_end:
            for lookup, n in Counter(lookups).items():
                cells[lookup].value += n
            return []
        out = []
        for key, lookup in zip(keys, lookups, strict=True):
            cell = cells[lookup]
            cell.value = total = cell.value + 1
            out.append((key, total))
        return out

    def result(self) -> int:
        """The count."""
        return self.total.value


class Reduce(KeyedFold):
    """Folds each key's records into one of the same type."""

    def __init__(self, type: Any, fn: Callable[[Any, Any], Any], emit: str) -> None:
        super().__init__(emit)
        self.reduced = ReducingState(type, fn)

    def process(self, record: Any, ctx: Context[Any]) -> Iterable[tuple[Any, Any]] | None:
        """Fold one in."""
        self.reduced.add(record)
        return None if self.emits_at_end else ((ctx.key, self.reduced.value),)

    def result(self) -> Any:
        """The fold so far."""
        return self.reduced.value


class Aggregated(KeyedFold):
    """Folds each key's records with an aggregate."""

    def __init__(self, aggregate: Aggregate[Any, Any, Any], emit: str) -> None:
        super().__init__(emit)
        self.aggregated = AggregatingState(aggregate)

    def process(self, record: Any, ctx: Context[Any]) -> Iterable[tuple[Any, Any]] | None:
        """Fold one in."""
        self.aggregated.add(record)
        return None if self.emits_at_end else ((ctx.key, self.aggregated.value),)

    def result(self) -> Any:
        """The aggregate's result so far."""
        return self.aggregated.value
