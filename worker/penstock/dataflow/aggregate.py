"""The aggregate protocol: four methods, and the type of what is stored, read from `create`."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar, get_type_hints

from penstock.core.errors import Rejected

In_contra = TypeVar("In_contra", contravariant=True)
Acc = TypeVar("Acc")
Out_co = TypeVar("Out_co", covariant=True)


class Aggregate(Protocol[In_contra, Acc, Out_co]):
    """Folds records into an accumulator; the annotation of `create` says what is stored."""

    def create(self) -> Acc:
        """The accumulator of nothing."""
        ...

    def add(self, acc: Acc, record: In_contra, /) -> Acc:
        """Fold a record in; a new accumulator, or the same one changed."""
        ...

    def merge(self, a: Acc, b: Acc, /) -> Acc:
        """The accumulator of both (sessions merge)."""
        ...

    def result(self, acc: Acc, /) -> Out_co:
        """What comes out."""
        ...


_METHODS = ("create", "add", "merge", "result")


def accumulator_type(aggregate: Aggregate[Any, Any, Any]) -> tuple[Any, Any]:
    """The stored type, and the aggregate's own serializer when it has one.

    Raises:
        Rejected: it is no aggregate, or `create` has no return annotation.
    """
    missing = [name for name in _METHODS if not callable(getattr(aggregate, name, None))]
    if missing or isinstance(aggregate, type):
        what = f"the class {aggregate.__name__}" if isinstance(aggregate, type) else aggregate
        raise Rejected(
            f"{what} is not an aggregate" + (f": it has no {missing[0]}()" if missing else ""),
            where="aggregate",
            fix="give an instance of a class with create, add, merge and result",
        )
    custom = getattr(aggregate, "serializer", None)
    if custom is not None:
        return object, custom
    hint = get_type_hints(aggregate.create).get("return")
    if hint is None:
        raise Rejected(
            f"{type(aggregate).__name__}.create does not say what it stores",
            where=f"{type(aggregate).__module__}.{type(aggregate).__qualname__}",
            fix="annotate it: def create(self) -> YourAccumulator",
        )
    return hint, None
