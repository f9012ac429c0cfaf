"""Operators at work: each takes a whole batch of bare values and hands a batch down.

A stage calls the next ones directly; between stages there is no queue and no envelope. The author's
function runs inside C's own `map` and `filter`; which record it failed on is asked of the iterator
afterwards, so that errors cost nothing while there are none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from operator import length_hint
from typing import Any, Self

from penstock.core.errors import Rejected
from penstock.dataflow.builtin import KeyedFold
from penstock.dataflow.nodes import Node
from penstock.network.frames import OperatorMetrics
from penstock.runtime.failures import NOTHING, UserError, locals_of, no_end_of_records
from penstock.runtime.loops import check_value, keyed_loop
from penstock.spec.tracebacks import raised
from penstock.state.keyed import KeyedStates

Down = Callable[[Sequence[Any]], None]


def fan(targets: Sequence[Down]) -> Down:
    """One function for all that take the same records."""
    if len(targets) == 1:
        return targets[0]

    def to_all(values: Sequence[Any]) -> None:
        for target in targets:
            target(values)

    return to_all


class Stage:
    """Base: counts what goes in and out; `down` is set once everything after it is built."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.down: Down = _nowhere
        self.records_in = 0
        self.records_out = 0
        self._first = True

    def __call__(self, values: Sequence[Any]) -> None:
        """Handle a batch."""
        self.records_in += len(values)
        it = iter(values)
        try:
            out = self.results(it, values)
        except (Exception, SystemExit) as e:
            failed = max(len(values) - length_hint(it) - 1, 0)
            raise UserError(self.node, record=values[failed], index=failed) from e
        self._emit(out)

    def results(self, it: Iterable[Any], values: Sequence[Any]) -> list[Any]:
        """What comes out of a batch; `it` iterates over values."""
        raise AssertionError

    def metrics(self) -> OperatorMetrics:
        """Totals so far."""
        return OperatorMetrics(records_in=self.records_in, records_out=self.records_out)

    def close(self) -> None:
        """Called once at the end."""

    def _emit(self, out: Sequence[Any]) -> None:
        if out:
            self.records_out += len(out)
            self.down(out)


class _FunctionStage(Stage):
    """A plain function; one that is a context manager is entered for the time of the attempt."""

    def __init__(self, node: Node) -> None:
        super().__init__(node)
        self.fn = node.runs
        enter = getattr(type(self.fn), "__enter__", None)
        if enter is not None:
            enter(self.fn)

    def close(self) -> None:
        """See Stage."""
        leave = getattr(type(self.fn), "__exit__", None)
        if leave is not None:
            leave(self.fn, None, None, None)


class MapStage(_FunctionStage):
    """One for each."""

    def results(self, it: Iterable[Any], values: Sequence[Any]) -> list[Any]:
        """See Stage."""
        out = list(map(self.fn, it))
        if len(out) < len(values):
            raise no_end_of_records()
        return out


class FlatMapStage(_FunctionStage):
    """Any number for each."""

    def results(self, it: Iterable[Any], values: Sequence[Any]) -> list[Any]:
        """See Stage."""
        fn = self.fn
        if self._first:
            self._first = False
            fn = refusing_text(fn, "flat_map")
        end = _End()
        out = list(chain.from_iterable(map(fn, chain(it, end))))
        if not end.is_reached:
            raise no_end_of_records()
        return out


class FilterStage(_FunctionStage):
    """Some."""

    def results(self, it: Iterable[Any], values: Sequence[Any]) -> list[Any]:
        """See Stage."""
        end = _End()
        out = list(filter(self.fn, chain(it, end)))
        if not end.is_reached:
            raise no_end_of_records()
        return out


class OfTypeStage(Stage):
    """Those of one class."""

    def results(self, it: Iterable[Any], values: Sequence[Any]) -> list[Any]:
        """See Stage."""
        cls = self.node.runs
        return [value for value in it if isinstance(value, cls)]


class MapBatchesStage(_FunctionStage):
    """Whole batches, of at most `max_size`."""

    def results(self, it: Iterable[Any], values: Sequence[Any]) -> list[Any]:
        """See Stage."""
        size = self.node.options["max_size"]
        if len(values) <= size:
            return list(self.fn(values))
        parts = (values[at : at + size] for at in range(0, len(values), size))
        return [record for part in parts for record in self.fn(part)]


class _SideHandle:
    """What `self.again` is while records are processed: its `emit` is a list's append."""

    def __init__(self) -> None:
        self.records: list[Any] = []
        self.emit = self.records.append


class ProcessStage(Stage):
    """A stateful function without keys."""

    def __init__(self, node: Node, function: Any, context: Any) -> None:
        super().__init__(node)
        self.function = function
        self.context = context
        self.side_downs: dict[str, Down] = {}
        self._sides: dict[str, _SideHandle] = {}
        for name in node.side_outputs():
            self._sides[name] = handle = _SideHandle()
            function.__dict__[name] = handle

    @property
    def side_names(self) -> Iterable[str]:
        """The side outputs that the function declares."""
        return self._sides.keys()

    def results(self, it: Iterable[Any], values: Sequence[Any]) -> list[Any]:
        """See Stage."""
        out: list[Any] = []
        extend, context, process = out.extend, self.context, self._process()
        for record in it:
            extend(process(record, context) or ())
        return out

    def metrics(self) -> OperatorMetrics:
        """See Stage."""
        counters = {name: c.total for name, c in self.context.counters.items()}
        return OperatorMetrics(
            records_in=self.records_in, records_out=self.records_out, counters=counters
        )

    def close(self) -> None:
        """See Stage."""
        close = getattr(self.function, "close", None)
        if close is not None:
            close()

    def _process(self) -> Callable[..., Any]:
        process: Callable[..., Any] = self.function.process
        if self._first:
            self._first = False
            return refusing_text(process, "process")
        return process

    def _emit(self, out: Sequence[Any]) -> None:
        super()._emit(out)
        for name, handle in self._sides.items():
            if handle.records:
                records = handle.records[:]
                handle.records.clear()
                self.records_out += len(records)
                self.side_downs[name](records)


class KeyedStage(ProcessStage):
    """A stateful function after key_by: the head of its chain."""

    def __init__(self, node: Node, function: Any, context: Any, states: KeyedStates) -> None:
        super().__init__(node, function, context)
        self.states = states
        specs = [cls.spec for cls in states.classes]
        self._loops = {
            by_object: keyed_loop(specs, by_object=by_object) for by_object in (True, False)
        }
        self._classes = [spec.serializer.exact_class for spec in specs]
        self._in_batches = (
            getattr(function, "process_batch", None) if isinstance(function, KeyedFold) else None
        )

    def handle(self, keys: Sequence[Any], values: Sequence[Any]) -> None:
        """Handle a batch of records with their keys."""
        self.records_in += len(values)
        try:
            lookups = self.states.bind(keys)
        except (Exception, SystemExit) as e:
            raise self._of_one(keys, values, e) from e
        if self._in_batches is not None:
            self._emit(self._in_batches(keys, lookups, self.states.cells[0]))
        else:
            out: list[Any] = []
            loop = self._loops[lookups is keys]
            process = self._process()
            args = (self.function, process, self.context, keys, lookups, values, out)
            try:
                loop(*args, self.states.cells, self._classes, check_value)
            except (Exception, SystemExit) as e:
                at = locals_of(e, loop)
                record, key = at.get("record", NOTHING), at.get("key", NOTHING)
                raise UserError(self.node, record=record, key=key) from e
            self._emit(out)
        self.states.trim()

    def _of_one(
        self, keys: Sequence[Any], values: Sequence[Any], error: BaseException
    ) -> UserError:
        """The error of a batch, told with the record whose key alone raises it."""
        for key, value in zip(keys, values, strict=True):
            try:
                self.states.bind([key])
            except Exception as e:  # noqa: BLE001  which one it is was known before
                if raised(e) == raised(error):
                    found = UserError(self.node, record=value, key=key)
                    found.is_of_key = True
                    return found
        return UserError(self.node)

    def finish_group(self, group: int) -> None:
        """At the end of input: the results of one key group's keys, for functions that wait."""
        function, context, cells = self.function, self.context, self.states.cells
        for keys in _pieces(self.states.keys_of_group(group), 1024):
            out = []
            for key, lookup in zip(keys, self.states.bind(keys), strict=True):
                context.key = key
                for name, table in zip(self.states.names, cells, strict=True):
                    function.__dict__[name] = table[lookup]
                try:
                    out.append((key, function.result()))
                except (Exception, SystemExit) as e:
                    raise UserError(self.node, key=key) from e
            self._emit(out)
            self.states.trim()

    def metrics(self) -> OperatorMetrics:
        """See Stage."""
        counters = {name: c.total for name, c in self.context.counters.items()}
        return OperatorMetrics(
            records_in=self.records_in,
            records_out=self.records_out,
            keys=self.states.key_count,
            state_bytes=self.states.backend.size_bytes(),
            counters=counters,
        )


STATELESS: dict[str, type[Stage]] = {
    "map": MapStage,
    "flat_map": FlatMapStage,
    "filter": FilterStage,
    "of_type": OfTypeStage,
    "map_batches": MapBatchesStage,
}


def refusing_text(fn: Callable[..., Any], verb: str) -> Callable[..., Any]:
    """Fn, but a returned str or bytes is an error: it would come out as characters."""

    def checked(*args: Any) -> Any:
        result = fn(*args)
        if isinstance(result, str | bytes):
            raise Rejected(
                f"{verb} returned {type(result).__name__}, which would become characters, not records",
                where=getattr(fn, "__qualname__", str(fn)),
                fix="did you mean map? Otherwise return a list or tuple, or yield each record",
            )
        return result

    return checked


class _End:
    """Stands behind the records: whether they were all taken, or `map` took a StopIteration of the
    author's for their end."""

    def __init__(self) -> None:
        self.is_reached = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        self.is_reached = True
        raise StopIteration


def _pieces(items: Iterable[Any], size: int) -> Iterable[list[Any]]:
    piece: list[Any] = []
    for item in items:
        piece.append(item)
        if len(piece) == size:
            yield piece
            piece = []
    if piece:
        yield piece


def _nowhere(values: Sequence[Any]) -> None:
    """Records that nobody reads."""
