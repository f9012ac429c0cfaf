"""Stateful stream jobs in plain Python. Everything a job author imports.

Public are this root and its modules `sources`, `sinks`, `formats`, `aggregates`, `testing` and
`snapshots`; nothing else.
"""

from penstock import aggregates as aggregates
from penstock import formats as formats
from penstock import sinks as sinks
from penstock import sources as sources
from penstock._version import __version__ as __version__
from penstock.core.errors import Corrupt, PenstockError, Rejected, Retryable
from penstock.dataflow.aggregate import Aggregate
from penstock.dataflow.functions import (
    Context,
    Function,
    KeyedFunction,
    RestoreContext,
    SnapshotContext,
    SupportsProcess,
)
from penstock.dataflow.states import (
    AggregatingState,
    ListState,
    MapState,
    ReducingState,
    Serializer,
    SideOutput,
    SplitListState,
    UnionListState,
    ValueState,
)
from penstock.dataflow.stream import Environment, KeyedStream, Stream

__all__ = [
    "Aggregate",
    "AggregatingState",
    "Context",
    "Corrupt",
    "Environment",
    "Function",
    "KeyedFunction",
    "KeyedStream",
    "ListState",
    "MapState",
    "PenstockError",
    "ReducingState",
    "Rejected",
    "RestoreContext",
    "Retryable",
    "Serializer",
    "SideOutput",
    "SnapshotContext",
    "SplitListState",
    "Stream",
    "SupportsProcess",
    "UnionListState",
    "ValueState",
    "__version__",
    "aggregates",
    "formats",
    "sinks",
    "sources",
]
