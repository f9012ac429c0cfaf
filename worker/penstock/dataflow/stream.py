"""The fluent builder: what `job(env, …)` writes a dataflow with. It only collects nodes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Generic, Literal, TypeGuard, overload

from typing_extensions import TypeVar

from penstock.core.errors import Rejected
from penstock.core.graph import Exchange, JobGraph
from penstock.core.ids import OperatorId
from penstock.dataflow import builtin, describe
from penstock.dataflow.aggregate import Aggregate
from penstock.dataflow.connector import Sink, Source
from penstock.dataflow.functions import SupportsProcess
from penstock.dataflow.nodes import KeyBy, Node, Output, check_uid, graph_of
from penstock.dataflow.states import SideOutput

T = TypeVar("T")
U = TypeVar("U")
K = TypeVar("K")
Out = TypeVar("Out")
Acc = TypeVar("Acc")
T_co = TypeVar("T_co", covariant=True)

Emit = Literal["every", "end"]
_PACKAGE = str(Path(__file__).resolve().parent.parent)


class Environment:
    """What `job(env, ...)` builds on."""

    def __init__(self, job_name: str) -> None:
        self._name = job_name
        self._nodes: list[Node] = []

    @property
    def job_name(self) -> str:
        """The job's name, as in its manifest."""
        return self._name

    def source(self, source: Source[T], *, uid: str, parallelism: int | None = None) -> Stream[T]:
        """Records from outside. `parallelism`: subtasks of this operator, at most the job's."""
        if not isinstance(source, Source):
            raise Rejected(
                f"{type(source).__name__} is not a source",
                where=f"source, {_caller()}",
                fix="give one of penstock.sources, or a subclass of sources.Source",
            )
        if parallelism is None:
            parallelism = source.default_parallelism
        node = self._add(
            "source",
            source,
            uid=uid,
            parallelism=parallelism,
            record_type=source.record_type,
            label=describe.without_addresses(source.label),
        )
        return Stream(self, (Output(node.id),), record_type=source.record_type)

    def _add(
        self, kind: str, runs: Any, *, uid: str = "", named: bool = True, **fields: Any
    ) -> Node:
        where = _caller()
        if not named:
            taken = sum(1 for n in self._nodes if n.kind == kind)
            id = OperatorId(f"{kind.replace('_', '-')}-{taken + 1}")
        else:
            check_uid(uid, kind, where)
            id = OperatorId(uid)
        for other in self._nodes:
            if other.id == id:
                raise Rejected(
                    f"two operators have the uid {id}",
                    where=f"{other.kind} at {other.location} and {kind} at {where}",
                    fix="give each its own: its state is found by it",
                )
        parallelism = fields.get("parallelism")
        if parallelism is not None and (not isinstance(parallelism, int) or parallelism < 1):
            raise Rejected(
                f"parallelism={parallelism!r} of {id} is not a number above 0",
                where=f"{kind}, {where}",
                fix="give a whole number, or leave it out for the job's own",
            )
        node = Node(id=id, kind=kind, runs=runs, uid=named, **fields)
        if not node.location:
            node.location = where
        node.check()
        self._nodes.append(node)
        return node

    def nodes(self) -> list[Node]:
        """The operators in the order they were made, which is a topological one."""
        return self._nodes

    def graph(self) -> JobGraph:
        """The graph as plain data.

        Raises:
            Rejected: `job()` made nothing.
        """
        if not any(n.kind == "source" for n in self._nodes):
            raise Rejected(
                f"job() of {self._name} made no source, so there is nothing to run",
                where="job(env, …)",
                fix="begin with env.source(…, uid=…)",
            )
        return graph_of(self._name, self._nodes)


class Stream(Generic[T_co]):
    """Records of one type. Covariant: a Stream[Order] is a Stream[Order | Payment]."""

    def __init__(
        self,
        env: Environment,
        outputs: tuple[Output, ...],
        *,
        exchange: Exchange = Exchange.FORWARD,
        record_type: Any = None,
    ) -> None:
        self._env = env
        self._outputs = outputs
        self._exchange = exchange
        self._record_type = record_type

    # ── stateless: chained, no uid; `name` is for the graph and for errors only ──────────────────

    def map(self, fn: Callable[[T_co], U], *, name: str | None = None) -> Stream[U]:
        """One record for each."""
        return self._stateless("map", fn, name, describe.returned(fn))

    def flat_map(self, fn: Callable[[T_co], Iterable[U]], *, name: str | None = None) -> Stream[U]:
        """Any number of records for each."""
        return self._stateless("flat_map", fn, name, describe.returned_item(fn))

    @overload
    def filter(
        self, fn: Callable[[T_co], TypeGuard[U]], *, name: str | None = None
    ) -> Stream[U]: ...
    @overload
    def filter(self, fn: Callable[[T_co], bool], *, name: str | None = None) -> Stream[T_co]: ...
    def filter(self, fn: Callable[[T_co], Any], *, name: str | None = None) -> Stream[Any]:
        """The records for which fn is true."""
        return self._stateless("filter", fn, name, self._record_type)

    def of_type(self, type: type[U]) -> Stream[U]:
        """The records of that class, or of a class derived from it."""
        return self._stateless("of_type", type, type.__qualname__, type)

    def map_batches(
        self,
        fn: Callable[[Sequence[T_co]], Iterable[U]],
        *,
        max_size: int = 1024,
        name: str | None = None,
    ) -> Stream[U]:
        """Whole batches at once, of at most `max_size` records.

        A batch never straddles a barrier; its size is not part of any promise.
        """
        if max_size < 1:
            raise Rejected(
                f"max_size={max_size} is below 1",
                where=f"map_batches, {_caller()}",
                fix="give the largest batch that fn can take",
            )
        return self._stateless(
            "map_batches", fn, name, describe.returned_item(fn), max_size=max_size
        )

    def union(self, *others: Stream[U]) -> Stream[T_co | U]:
        """All records of these streams, in no particular order among them."""
        types = {str(s._record_type) for s in (self, *others)}
        outputs = self._outputs + tuple(o for s in others for o in s._outputs)
        exchanges = {s._exchange for s in (self, *others)}
        return Stream(
            self._env,
            outputs,
            exchange=Exchange.FORWARD if exchanges == {Exchange.FORWARD} else Exchange.REBALANCE,
            record_type=self._record_type if len(types) == 1 else None,
        )

    def rebalance(self) -> Stream[T_co]:
        """The same records, spread evenly over all subtasks of what comes next."""
        return Stream(
            self._env, self._outputs, exchange=Exchange.REBALANCE, record_type=self._record_type
        )

    # ── stateful: uid is required ────────────────────────────────────────────────────────────────

    def key_by(
        self, key: Callable[[T_co], K], *, key_type: type[K] | None = None
    ) -> KeyedStream[K, T_co]:
        """Partition by key: all records of a key are handled by one subtask, in order."""
        hint = key_type if key_type is not None else describe.returned(key)
        return KeyedStream(self, KeyBy(key, hint))

    def process(
        self, fn: SupportsProcess[None, T_co, Out], *, uid: str, parallelism: int | None = None
    ) -> Stream[Out]:
        """A stateful function without keys: it may have operator state."""
        return _process(self, None, fn, uid, parallelism)

    def sink(self, sink: Sink[T_co], *, uid: str, parallelism: int | None = None) -> None:
        """Records to outside."""
        if not isinstance(sink, Sink):
            raise Rejected(
                f"{type(sink).__name__} is not a sink",
                where=f"sink, {_caller()}",
                fix="give one of penstock.sinks, or a subclass of sinks.Sink",
            )
        self._env._add(
            "sink",
            sink,
            uid=uid,
            inputs=self._outputs,
            exchange=self._exchange,
            parallelism=parallelism,
            label=describe.without_addresses(sink.label),
        )

    def side(self, output: SideOutput[U]) -> Stream[U]:
        """What the function that made this stream emitted to one of its side outputs."""
        nodes = {n.id: n for n in self._env.nodes()}
        if (
            len(self._outputs) != 1
            or output.name not in nodes[self._outputs[0].operator].side_outputs()
        ):
            raise Rejected(
                f"the operator before .side() declares no side output {output.name or '(unnamed)'}",
                where=f"side, {_caller()}",
                fix="call .side(…) on the stream that .process(…) returned",
            )
        return Stream(
            self._env,
            (Output(self._outputs[0].operator, output.name),),
            record_type=output.record_type,
        )

    def _how_to_type(self) -> str:
        """What to do so that the type of these records is known."""
        nodes = {n.id: n for n in self._env.nodes()}
        for output in self._outputs:
            node = nodes[output.operator]
            while node.kind == "filter" and len(node.inputs) == 1:
                node = nodes[node.inputs[0].operator]
            if node.record_type is None and node.kind in ("map", "flat_map", "map_batches"):
                if node.label.startswith("lambda"):
                    return (
                        f"in place of {node.label} ({node.location}) give {node.kind} a function "
                        "whose return type is annotated"
                    )
                return f"annotate the return type of {node.label} ({node.location})"
            if node.record_type is None and node.kind == "process":
                return f"annotate the return type of {node.label}.process ({node.location})"
        return "put .map(parse) before key_by, with the return type of parse annotated"

    def _stateless(
        self, kind: str, fn: Any, name: str | None, record_type: Any, **options: Any
    ) -> Stream[Any]:
        if not callable(fn):
            raise Rejected(
                f"{kind}({fn!r}): {type(fn).__name__} cannot be called",
                where=_caller(),
                fix="give a function",
            )
        nodes = {n.id: n for n in self._env.nodes()}
        of_inputs = {nodes[o.operator].parallelism for o in self._outputs}
        same = len(of_inputs) == 1 and self._exchange is Exchange.FORWARD
        node = self._env._add(
            kind,
            fn,
            named=False,
            inputs=self._outputs,
            exchange=self._exchange,
            parallelism=next(iter(of_inputs)) if same else None,
            record_type=record_type,
            label=name or describe.label(fn),
            location=describe.location(fn) if kind != "of_type" else "",
            options=options,
        )
        return Stream(self._env, (Output(node.id),), record_type=record_type)


class KeyedStream(Generic[K, T_co]):
    """Not a Stream: only what makes sense on keys. `K` is invariant, as keys are durable."""

    def __init__(self, stream: Stream[T_co], key: KeyBy) -> None:
        self._stream = stream
        self._key = key

    def process(
        self, fn: SupportsProcess[K, T_co, Out], *, uid: str, parallelism: int | None = None
    ) -> Stream[Out]:
        """A stateful function: its keyed state is the current key's."""
        return _process(self._stream, self._key, fn, uid, parallelism)

    def count(self, *, uid: str, emit: Emit = "every") -> Stream[tuple[K, int]]:
        """How many records each key has had: after every record, or once at the end of input."""
        return self._fold("count", builtin.Count(emit), uid, int)

    def reduce(
        self, fn: Callable[[T_co, T_co], T_co], *, uid: str, emit: Emit = "every"
    ) -> Stream[tuple[K, T_co]]:
        """Each key's records folded into one of the same type.

        Raises:
            Rejected: the records' type is not known; it says which function to annotate.
        """
        record_type = self._stream._record_type
        if record_type is None:
            raise Rejected(
                f"reduce {uid} stores records, and their type is not known here",
                where=f"reduce, {_caller()}",
                fix=self._stream._how_to_type(),
            )
        return self._fold("reduce", builtin.Reduce(record_type, fn, emit), uid, record_type)

    def aggregate(
        self, aggregate: Aggregate[T_co, Acc, Out], *, uid: str, emit: Emit = "every"
    ) -> Stream[tuple[K, Out]]:
        """Each key's records folded with an aggregate; its results."""
        fold = builtin.Aggregated(aggregate, emit)
        return self._fold("aggregate", fold, uid, describe.returned(aggregate.result))

    def _fold(self, kind: str, fn: builtin.KeyedFold, uid: str, value_type: Any) -> Stream[Any]:
        known = self._key.type is not None and value_type is not None
        record_type = tuple[self._key.type, value_type] if known else None  # type: ignore[name-defined]
        return _keyed(self._stream, self._key, kind, fn, uid, None, record_type)


def _process(
    stream: Stream[Any], key: KeyBy | None, fn: Any, uid: str, parallelism: int | None
) -> Stream[Any]:
    process = getattr(fn, "process", None)
    if isinstance(fn, type) or not callable(process):
        what = f"the class {fn.__name__}" if isinstance(fn, type) else type(fn).__name__
        raise Rejected(
            f"{what} cannot process records",
            where=f"process, {_caller()}",
            fix="give an instance of a class with a method process(self, record, ctx)",
        )
    return _keyed(stream, key, "process", fn, uid, parallelism, describe.returned_item(process))


def _keyed(
    stream: Stream[Any],
    key: KeyBy | None,
    kind: str,
    fn: Any,
    uid: str,
    parallelism: int | None,
    record_type: Any,
) -> Stream[Any]:
    node = stream._env._add(
        kind,
        fn,
        uid=uid,
        inputs=stream._outputs,
        exchange=stream._exchange if key is None else Exchange.HASH,
        parallelism=parallelism,
        key=key,
        record_type=record_type,
        label=type(fn).__name__ if kind == "process" else kind,
    )
    return Stream(stream._env, (Output(node.id),), record_type=record_type)


def _caller() -> str:
    """The author's line that led here: `wordcount.py:17`."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
