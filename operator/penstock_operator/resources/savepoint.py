"""Savepoint: one savepoint as an object, which outlives its job."""

from __future__ import annotations

from penstock_operator.resources.names import ResourceKind

SAVEPOINT = ResourceKind(
    kind="Savepoint",
    plural="savepoints",
    singular="savepoint",
    short_names=("svp",),
    categories=("penstock",),
)
