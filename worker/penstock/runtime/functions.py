"""An author's function made ready to work: its own copy, its context, its operator state, opened."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from penstock.core.descriptors import KEYED_KINDS
from penstock.dataflow.functions import Context, RestoreContext
from penstock.dataflow.nodes import Node
from penstock.runtime.failures import UserError
from penstock.state.cells import StateSpec
from penstock.state.operator_state import OperatorList


@dataclass(frozen=True, slots=True)
class BegunFunction:
    """One subtask's own instance, and what belongs to it."""

    function: Any
    context: Context[Any]
    lists: dict[str, OperatorList]


def begin_function(
    node: Node,
    *,
    subtask: int,
    parallelism: int,
    now_ms: Callable[[], int],
    stored: Mapping[str, Sequence[bytes]] | None,
) -> BegunFunction:
    """Initialize and open a function; `stored` is its operator state, None on a fresh start.

    Raises:
        UserError: the author's own methods raised.
    """
    # Each subtask has its own: cells and side outputs are put into the instance's __dict__.
    function = copy.copy(node.runs)
    context: Context[Any] = Context(
        function,
        subtask=subtask,
        parallelism=parallelism,
        now_ms=now_ms,
        log=logging.getLogger(f"penstock.job.{node.id}"),
    )
    lists = {
        name: OperatorList(name, state.serializer, (stored or {}).get(name, ()))
        for name, state in node.states().items()
        if state.kind not in KEYED_KINDS
    }
    function.__dict__.update(lists)
    with calling(node):
        if (initialize := getattr(function, "initialize_state", None)) is not None:
            restoring = RestoreContext.beside(context)
            restoring.is_restored = stored is not None
            initialize(restoring)
        if (opening := getattr(function, "open", None)) is not None:
            opening(context)
    return BegunFunction(function, context, lists)


def keyed_specs(node: Node) -> list[StateSpec]:
    """The keyed state that a function declares, as its cells need it."""
    return [state.spec() for state in node.states().values() if state.kind in KEYED_KINDS]


@contextmanager
def calling(node: Node) -> Iterator[None]:
    """What the author's code raises here, away from any record, is told with its operator."""
    try:
        yield
    except (Exception, SystemExit) as e:
        raise UserError(node) from e
