"""The generated loop of a keyed operator: one per declaration of state, compiled once.

What it does for each record: set the key, put each state's cell into the function's `__dict__`, call
`process`, gather what comes out, and check the type of every plain value that changed. Written as a
loop over generic lists of states it would cost twice as much.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from penstock.core.descriptors import StateKind
from penstock.state.cells import StateSpec

Loop = Callable[..., None]

_FILE = __file__.replace("loops", "generated")
"""In our own folder, so that no traceback shown to authors has it."""


def keyed_loop(specs: Sequence[StateSpec], *, by_object: bool) -> Loop:
    """`loop(fn, process, ctx, keys, lookups, records, out, cells, classes, check)`.

    `cells[i]` are the cells of `specs[i]` by lookup; by_object says that lookups are the keys.
    `classes[i]` is the class that needs no check; `check(cell)` raises for a wrong value.
    """
    lines = ["def loop(fn, process, ctx, keys, lookups, records, out, cells, classes, check):"]
    lines += ["    extend = out.extend"]
    for i in range(len(specs)):
        lines += [f"    cells{i} = cells[{i}]", f"    class{i} = classes[{i}]"]
    if by_object:
        lines += ["    for key, record in zip(keys, records):"]
        lookup = "key"
    else:
        lines += ["    for key, lookup, record in zip(keys, lookups, records):"]
        lookup = "lookup"
    lines += ["        ctx.key = key"]
    checked = [i for i, spec in enumerate(specs) if _is_plain(spec)]
    for i, spec in enumerate(specs):
        lines += [f"        fn.{spec.name} = cell{i} = cells{i}[{lookup}]"]
        if i in checked and spec.serializer.exact_class is None:
            lines += [f"        before{i} = cell{i}.value"]
    lines += ["        extend(process(record, ctx) or ())"]
    for i in checked:
        if specs[i].serializer.exact_class is None:
            lines += [f"        if cell{i}.value is not before{i}: check(cell{i})"]
        else:
            lines += [f"        if cell{i}.value.__class__ is not class{i}: check(cell{i})"]
    names: dict[str, Any] = {}
    exec(compile("\n".join(lines), _FILE, "exec"), names)  # noqa: S102
    loop: Loop = names["loop"]
    return loop


def check_value(cell: Any) -> None:
    """Raise for a plain cell whose value is not of the declared type; None is the cleared one."""
    if cell.value is not None and not cell.spec.serializer.accepts(cell.value):
        raise cell.refuse(cell.value)


def _is_plain(spec: StateSpec) -> bool:
    return spec.kind in (StateKind.VALUE, StateKind.REDUCING) and spec.serializer.immutable
