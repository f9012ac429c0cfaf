"""Out of a chain: records to channels, by key, in turns, or straight on.

Small batches wait here for more until `flush`, which the mailbox calls when a batch is old enough,
when input is idle, and before every barrier: a batch never straddles one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from operator import length_hint
from typing import Any

from penstock.core.keygroups import key_group, subtask_of
from penstock.core.keys import BY_OBJECT, encode_key
from penstock.core.records import Batch, Element
from penstock.dataflow.nodes import Node
from penstock.network.port import Output
from penstock.runtime.failures import UserError, no_end_of_records

_BATCH_MIN = 512
"""A part of fewer records waits for more."""

_ROUTES_MAX = 1_000_000


class Exchange:
    """Base: the channels of one edge, from one subtask to all of the target's."""

    def __init__(self, outputs: Sequence[Output]) -> None:
        self.outputs = outputs
        self._waiting: list[list[Sequence[Any]]] = [[] for _ in outputs]
        self._counts = [0] * len(outputs)

    @property
    def is_full(self) -> bool:
        """Whether the chain before it must wait."""
        return any(output.is_full for output in self.outputs)

    @property
    def is_waiting(self) -> bool:
        """Whether there are records that only `flush` sends."""
        return any(self._counts)

    def __call__(self, values: Sequence[Any]) -> None:
        """Take a batch's records."""
        raise AssertionError

    def flush(self) -> None:
        """Send what waits."""
        for i, count in enumerate(self._counts):
            if count:
                self._send_waiting(i)

    def control(self, element: Element) -> None:
        """A barrier, watermark or end of input, to all channels, behind every record."""
        self.flush()
        for output in self.outputs:
            output.send(element)

    def _give(self, i: int, values: Sequence[Any]) -> None:
        if not self._counts[i] and len(values) >= _BATCH_MIN:
            self.outputs[i].send(Batch(values))
            return
        self._waiting[i].append(values)
        self._counts[i] += len(values)
        if self._counts[i] >= _BATCH_MIN:
            self._send_waiting(i)

    def _send_waiting(self, i: int) -> None:
        parts, self._waiting[i], self._counts[i] = self._waiting[i], [], 0
        values = parts[0] if len(parts) == 1 else list(chain.from_iterable(parts))
        self.outputs[i].send(Batch(values))


class Straight(Exchange):
    """One channel: between equal parallelisms that are not chained."""

    def __call__(self, values: Sequence[Any]) -> None:
        """See Exchange."""
        self._give(0, values)


class InTurns(Exchange):
    """Batches to each channel in turn."""

    def __init__(self, outputs: Sequence[Output], start: int) -> None:
        super().__init__(outputs)
        self._next = start % len(outputs)

    def __call__(self, values: Sequence[Any]) -> None:
        """See Exchange."""
        self._give(self._next, values)
        self._next = (self._next + 1) % len(self.outputs)


class ByKey(Exchange):
    """Each record to the subtask that owns its key's group; keys travel beside the records."""

    def __init__(self, outputs: Sequence[Output], node: Node, *, max_parallelism: int) -> None:
        super().__init__(outputs)
        assert node.key is not None
        self._node = node
        self._key = node.key.fn
        self._max_parallelism = max_parallelism
        self._waiting_keys: list[list[Sequence[Any]]] = [[] for _ in outputs]
        self._routed: type | None = None
        self._routes: dict[Any, int] = {}

    def __call__(self, values: Sequence[Any]) -> None:
        """See Exchange."""
        it = iter(values)
        try:
            keys = list(map(self._key, it))
            if len(keys) < len(values):
                raise no_end_of_records()
        except (Exception, SystemExit) as e:
            failed = len(values) - length_hint(it) - 1
            error = UserError(self._node, record=values[failed], index=failed)
            error.is_of_key = True
            raise error from e
        if len(self.outputs) == 1:
            self._give_keyed(0, keys, values)
            return
        parts: list[tuple[list[Any], list[Any]]] = [([], []) for _ in self.outputs]
        for key, value, target in zip(keys, values, self._targets(keys, values), strict=True):
            part = parts[target]
            part[0].append(key)
            part[1].append(value)
        for i, (part_keys, part_values) in enumerate(parts):
            if part_keys:
                self._give_keyed(i, part_keys, part_values)

    def _targets(self, keys: list[Any], values: Sequence[Any]) -> list[int]:
        classes = set(map(type, keys))
        if len(classes) == 1 and classes <= BY_OBJECT:
            (cls,) = classes
            if cls is not self._routed:
                self._routed, self._routes = cls, {}
            routes = self._routes
            if len(routes) > _ROUTES_MAX:
                routes.clear()
            try:
                return [routes[key] for key in keys]
            except KeyError:
                for key, value in zip(keys, values, strict=True):
                    if key not in routes:
                        routes[key] = self._route(key, value)
                return [routes[key] for key in keys]
        return [self._route(key, value) for key, value in zip(keys, values, strict=True)]

    def _route(self, key: Any, value: Any) -> int:
        try:
            group = key_group(encode_key(key), max_parallelism=self._max_parallelism)
        except (Exception, SystemExit) as e:
            failed = UserError(self._node, record=value, key=key)
            failed.is_of_key = True
            raise failed from e
        return subtask_of(
            group, parallelism=len(self.outputs), max_parallelism=self._max_parallelism
        )

    def _give_keyed(self, i: int, keys: Sequence[Any], values: Sequence[Any]) -> None:
        if not self._counts[i] and len(values) >= _BATCH_MIN:
            self.outputs[i].send(Batch(values, keys))
            return
        self._waiting[i].append(values)
        self._waiting_keys[i].append(keys)
        self._counts[i] += len(values)
        if self._counts[i] >= _BATCH_MIN:
            self._send_waiting(i)

    def _send_waiting(self, i: int) -> None:
        parts, self._waiting[i], self._counts[i] = self._waiting[i], [], 0
        keys, self._waiting_keys[i] = self._waiting_keys[i], []
        self.outputs[i].send(
            Batch(list(chain.from_iterable(parts)), list(chain.from_iterable(keys)))
        )
