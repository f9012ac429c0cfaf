"""The object cache in front of a backend: all keyed state of one subtask of one operator.

Before a batch, `bind` makes sure that every key of it has its cells, fetched by one multi-get. What
the batch changes is written back at barriers and when the cache is full, never at the update.

A barrier freezes logically: `frozen, dirty = dirty, set()`; nothing is copied or written then. Keys
that a later batch touches are written at their barrier value just before it, the others in slices
between batches. When none is left, the backend holds exactly the barrier's state, and until it was
copied out nothing newer is written to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import filterfalse, islice
from pathlib import Path
from typing import Any
from zlib import crc32

from penstock.core.errors import Rejected
from penstock.core.keygroups import KeyGroupRange, key_group
from penstock.core.keys import (
    BY_OBJECT,
    decode_key,
    encode_key,
    encode_keys,
    key_length,
    rebuild_key,
)
from penstock.core.rows import NO_NAMESPACE, group_width
from penstock.state.backend import CopiedOut, KeyedBackend
from penstock.state.cells import Cell, Changes, StateSpec, cell_class
from penstock.state.serializers import ValueSerializer, serializer_for

_ROWS_AT_ONCE = 500
"""A larger write holds the interpreter for longer than a batch takes."""


class KeyedStates:
    """Cells by key for each state, and which of them are newer than the backend.

    `key_type` is the declared type of keys, None when it is observed; `key_schema` is what the
    snapshot restored from says of it. `capacity` is in keys.
    """

    def __init__(
        self,
        backend: KeyedBackend,
        specs: Sequence[StateSpec],
        *,
        groups: KeyGroupRange,
        max_parallelism: int,
        capacity: int,
        key_type: Any = None,
        key_schema: str | None = None,
    ) -> None:
        self.backend = backend
        self.groups = groups
        self._max_parallelism = max_parallelism
        self._width = group_width(max_parallelism)
        # What the rows of a group begin with; a group of another subtask's raises KeyError.
        self._prefixes = {g: g.to_bytes(self._width, "big") for g in groups}
        self._capacity = capacity
        self.classes: list[type[Cell]] = [cell_class(spec, backend) for spec in specs]
        self.cells: tuple[dict[Any, Any], ...] = tuple({} for _ in specs)
        self.names = tuple(spec.name for spec in specs)
        self._dirty: set[Any] = set()
        self._frozen: set[Any] = set()
        self._copying = False
        self._key_type = key_type
        self._declared: ValueSerializer | None = (
            None if key_type is None else serializer_for(key_type)
        )
        self.key_schema = self._declared.schema if self._declared else key_schema
        self._key_classes: frozenset[type] = frozenset()
        self._by_object = self._declared is not None and self._declared.exact_class in BY_OBJECT
        for spec in specs:
            backend.open_table(spec.name)

    # ── before and after a batch ─────────────────────────────────────────────────────────────────

    def bind(self, keys: Sequence[Any]) -> Sequence[Any]:
        """Make ready the cells of all these keys; what to look them up by in `cells`, in order.

        Raises:
            Rejected: a key of another type than this operator's keys have.
        """
        classes = set(map(type, keys))
        if not classes <= self._key_classes:
            self._check_classes(classes, keys)
        lookups = keys if self._by_object else [encode_key(key) for key in keys]
        # What is dirty has its cells, and was written for the barrier before.
        if not self.cells or self._dirty.issuperset(lookups):
            return lookups
        fresh = set(filterfalse(self._dirty.__contains__, lookups))
        missing = fresh.difference(self.cells[0])
        if missing:
            if self._declared is not None and self._declared.exact_class is None:
                self._check_new(keys, lookups, missing)
            self._load(list(missing))
        touched = fresh & self._frozen
        if touched:
            self._frozen -= touched
            self._write(touched)
        self._dirty |= fresh
        return lookups

    def trim(self) -> None:
        """Keep the cache within its capacity, oldest keys first; called between batches."""
        if not self.cells or self._frozen or self._copying:
            return  # Nothing newer may reach the backend during a barrier; it is over in some batches.
        excess = len(self.cells[0]) - self._capacity
        if excess <= 0:
            return
        oldest = list(islice(self.cells[0], excess))
        changed = self._dirty.intersection(oldest)
        self._write(changed)
        self._dirty -= changed
        for key in oldest:
            for table in self.cells:
                del table[key]

    # ── barriers ─────────────────────────────────────────────────────────────────────────────────

    def freeze(self) -> None:
        """Remember what must be written for the barrier that came; nothing else happens."""
        assert not self._frozen, "the frozen set of an earlier barrier is not written"
        assert not self._copying, "an earlier barrier is not copied out"
        self._frozen, self._dirty = self._dirty, set()
        self._copying = True

    def write_slice(self) -> bool:
        """Write a slice of what is frozen; whether nothing frozen is left."""
        some = [self._frozen.pop() for _ in range(min(_ROWS_AT_ONCE, len(self._frozen)))]
        self._write(some)
        return not self._frozen

    def copy_out(self, path: Path) -> CopiedOut:
        """Copy what the backend holds, once `write_slice` said so; may run on another thread."""
        return self.backend.copy_out(path)

    def copied_out(self) -> None:
        """The copy is made (or given up): newer state may be written again."""
        self._copying = False

    @property
    def is_settled(self) -> bool:
        """Whether no barrier is under way here."""
        return not self._frozen and not self._copying

    # ── at the end of input ──────────────────────────────────────────────────────────────────────

    def write_back(self) -> bool:
        """Write a slice of what is newer than the backend; False once there is nothing newer."""
        assert self.is_settled, "a barrier's state is not copied out"
        some = list(islice(self._dirty, _ROWS_AT_ONCE))
        self._write(some)
        self._dirty.difference_update(some)
        return bool(some)

    def keys_of_group(self, group: int) -> list[Any]:
        """All keys of a group that have a value in the first state, once all is written back."""
        table = self.names[0]
        prefix = group.to_bytes(self._width, "big")
        rows = (row for row, _ in self.backend.scan(table, prefix))
        encoded = dict.fromkeys(row[self._width : key_length(row, self._width)] for row in rows)
        keys = []
        for data in encoded:
            key = rebuild_key(decode_key(data), self._key_type)
            if encode_key(key) != data:
                raise Rejected(
                    f"keys of type {self.key_schema} cannot be made again from what is stored, "
                    "because the type is not known here",
                    where="key_by",
                    fix="annotate the key function's return type, or give key_by(…, key_type=…)",
                )
            keys.append(key)
        return keys

    def group_of(self, key: Any) -> int:
        """The key group of a key."""
        return key_group(encode_key(key), max_parallelism=self._max_parallelism)

    @property
    def key_count(self) -> int:
        """Keys at hand; a lower bound of the keys there are."""
        return len(self.cells[0]) if self.cells else 0

    @property
    def changed_count(self) -> int:
        """Keys at hand that are newer than the backend: what a barrier now would freeze."""
        return len(self._dirty)

    # ── inside ───────────────────────────────────────────────────────────────────────────────────

    def _load(self, lookups: list[Any]) -> None:
        keys = encode_keys(lookups, type(lookups[0])) if self._by_object else lookups
        # key_group() and row_prefix(), inlined: two calls for each key cost as much as all the rest.
        groups, prefixes = self._max_parallelism, self._prefixes
        rows = [prefixes[crc32(key) % groups] + key + NO_NAMESPACE for key in keys]
        for cls, table in zip(self.classes, self.cells, strict=True):
            make: Any = cls
            if cls.single_row:
                stored = self.backend.get_many(cls.spec.name, rows)
                table.update(zip(lookups, cls.of_rows(rows, stored), strict=True))
            else:
                table.update(zip(lookups, map(make, rows), strict=True))

    def _write(self, lookups: Iterable[Any]) -> None:
        rest = iter(lookups)
        while some := list(islice(rest, _ROWS_AT_ONCE)):
            for cls, table in zip(self.classes, self.cells, strict=True):
                changes: Changes = []
                try:
                    cls.drain_all([table[lookup] for lookup in some], changes)
                except UnicodeEncodeError as e:
                    raise Rejected(
                        f"state {cls.spec.name} was given text that is not Unicode: {e.object!r}",
                        fix="decode it with errors='replace' before it is kept",
                    ) from e
                self._write_rows(cls.spec.name, changes)

    def _write_rows(self, name: str, changes: Changes) -> None:
        for part in _parts(changes, _ROWS_AT_ONCE):
            self.backend.write(name, part)

    def _check_new(self, keys: Sequence[Any], lookups: Sequence[Any], missing: set[Any]) -> None:
        """Look into keys that are seen for the first time: a tuple may hold something else."""
        assert self._declared is not None
        accepts = self._declared.accepts
        for key, lookup in zip(keys, lookups, strict=True):
            if lookup in missing and not accepts(key):
                raise self._wrong_type(key)

    def _check_classes(self, classes: set[type], keys: Iterable[Any]) -> None:
        for cls in sorted(classes - self._key_classes, key=lambda c: c.__qualname__):
            key = next(k for k in keys if type(k) is cls)
            encode_key(key)
            if self._declared is not None:
                if not self._declared.accepts(key):
                    raise self._wrong_type(key)
            elif self.key_schema is None or self._is_observed(cls):
                self.key_schema = self.key_schema or cls.__qualname__
                self._key_type = cls
                self._by_object = cls in BY_OBJECT
            else:
                raise self._wrong_type(key)
            self._key_classes |= {cls}

    def _is_observed(self, cls: type) -> bool:
        """Whether keys of this class are what a snapshot says of keys whose type nobody declared."""
        assert self.key_schema is not None
        same = cls.__qualname__ == self.key_schema.partition("[")[0].rpartition(".")[2]
        return same and not self._key_classes

    def _wrong_type(self, key: object) -> Rejected:
        return Rejected(
            f"the keys of this operator are {self.key_schema}, and one came that is "
            f"{type(key).__qualname__}: {key!r:.80}",
            where="key_by",
            fix="let the key function always return the same type: "
            "keys of different types are different keys, even 1 and True",
        )


def _parts(changes: Changes, size: int) -> Iterator[Changes]:
    if len(changes) <= size:
        if changes:
            yield changes
        return
    for at in range(0, len(changes), size):
        yield changes[at : at + size]
