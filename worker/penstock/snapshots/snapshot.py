"""One checkpoint or savepoint, opened to be read."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar, overload

from penstock.core.descriptors import KEYED_KINDS, StateDescriptor, StateKind
from penstock.core.errors import Corrupt, Rejected
from penstock.core.ids import OperatorId
from penstock.core.keygroups import KeyGroupRange, key_group
from penstock.core.keys import decode_key, encode_key, key_length
from penstock.core.manifest import Manifest, OperatorSnapshot, SnapshotKind
from penstock.core.paths import METADATA
from penstock.core.rows import PLAIN, group_of, group_width, prefix_length
from penstock.snapshots.rows import Files, Rows, opened
from penstock.state.plain import plain_map_key, plain_value
from penstock.storage.location import open_store
from penstock.storage.store import Store

V = TypeVar("V")
V_co = TypeVar("V_co", covariant=True)
_THREADS = 16


class _Declared(Protocol[V_co]):
    """A state as the job's code declares it: `CountWords.count`."""

    name: str
    serializer: Any

    @property
    def value(self) -> V_co: ...


@dataclass(frozen=True, slots=True)
class Entry:
    """What one key has in one state. `bytes` are those of its rows, keys and values together."""

    group: int
    key: bytes
    rows: tuple[tuple[bytes, bytes], ...]
    """Sub-key (of a list or map) and value, without the byte of flags."""

    @property
    def size_bytes(self) -> int:
        """Bytes of keys and values."""
        return sum(len(self.key) + len(sub) + len(value) for sub, value in self.rows)


class Snapshot:
    """A checkpoint or savepoint; what it is made of is read when it is asked for."""

    def __init__(self, store: Store, path: str, manifest: Manifest) -> None:
        self.manifest = manifest
        self.url = f"{store.url}/{path.rpartition('/')[0]}".rstrip("/")
        folder = path.rpartition("/")[0]
        if manifest.kind is SnapshotKind.CHECKPOINT:
            folder = folder.rpartition("/")[0]
        self._files = Files(store, f"{folder}/" if folder else "")

    @classmethod
    def open(cls, path: str) -> Self:
        """The snapshot in that folder (or of that `_metadata`): a path or a URL of `file://` or
        `s3://`.

        Raises:
            Rejected: there is none.
            Corrupt: its manifest is damaged.
        """
        root, folder = _split(path.removesuffix(METADATA).rstrip("/") or "/")
        store = open_store(root)
        where = f"{folder}/{METADATA}".lstrip("/")
        data = store.get(where)
        if data is None:
            raise Rejected(
                f"no snapshot: {path}",
                where=f"looked for {store.url.rstrip('/')}/{where}",
                fix="penstock snapshots lists what there is",
            )
        return cls(store, where, Manifest.from_bytes(data, path=f"{store.url}/{where}"))

    def operators(self) -> list[str]:
        """The uids of the operators that have a part in it."""
        return [str(uid) for uid in self.manifest.operators]

    @overload
    def values(self, uid: str, state: str, /) -> Iterator[tuple[Any, Any]]: ...
    @overload
    def values(self, uid: str, state: _Declared[V], /) -> Iterator[tuple[Any, V]]: ...
    def values(self, uid: str, state: Any, /) -> Iterator[tuple[Any, Any]]:
        """Each key with its value: a list's items as a list, a map's entries as a dict.

        `state` is a name (plain values, no code of the job needed) or the job's own ValueState, which
        gives values of its type. Keys are plain: an enum's is text, a dataclass's a tuple.

        Raises:
            Rejected: there is no such operator or keyed state.
            Corrupt: stored bytes cannot be read.
        """
        name = state if isinstance(state, str) else state.name
        descriptor = self.state(uid, name)
        one: Callable[[bytes], Any] = (
            _plain(descriptor) if isinstance(state, str) else state.serializer.decode
        )
        for _, entry in self.entries(uid, {name}):
            yield decode_key(entry.key), value_of(entry, descriptor, one)

    def get(self, uid: str, state: str, key: object) -> Any:
        """The plain value of one key, or None.

        Raises:
            Rejected: there is no such operator or keyed state, or this cannot be a key.
        """
        descriptor = self.state(uid, state)
        encoded = encode_key(key)
        group = key_group(encoded, max_parallelism=self.manifest.max_parallelism)
        for _, entry in self.entries(uid, {state}, groups=KeyGroupRange(group, group + 1)):
            if entry.key == encoded:
                return value_of(entry, descriptor, _plain(descriptor))
        return None

    # ── for those who look closer ───────────────────────────────────────────────────────────────

    def operator(self, uid: str) -> OperatorSnapshot:
        """One operator's part. Raises Rejected when it has none."""
        found = self.manifest.operators.get(OperatorId(uid))
        if found is None:
            raise Rejected(
                f"there is no operator {uid} in this snapshot",
                where=self.url,
                fix=f"it has: {', '.join(self.operators()) or 'none'}",
            )
        return found

    def state(self, uid: str, name: str) -> StateDescriptor:
        """A keyed state's descriptor. Raises Rejected when there is none of that name."""
        states = [s for s in self.operator(uid).states if s.kind in KEYED_KINDS]
        for descriptor in states:
            if descriptor.name == name:
                return descriptor
        raise Rejected(
            f"operator {uid} has no keyed state {name}",
            where=self.url,
            fix=f"it has: {', '.join(s.name for s in states) or 'none'}",
        )

    def entries(
        self, uid: str, states: set[str] | None = None, *, groups: KeyGroupRange | None = None
    ) -> Iterator[tuple[str, Entry]]:
        """Every key's entry in the named states (all), with the state's name.

        Ordered by key group, state and key's bytes within each subtask, and subtasks in order.
        """
        width = group_width(self.manifest.max_parallelism)
        for subtask in self.operator(uid).subtasks:
            keyed = subtask.keyed
            if keyed is None:
                continue
            wanted = keyed.groups if groups is None else keyed.groups.intersection(groups)
            if not len(wanted):
                continue
            with ExitStack() as stack:
                stored = stack.enter_context(
                    opened(keyed, self._files, max_parallelism=self.manifest.max_parallelism)
                )
                # A key's rows may be spread over two blocks; so they are joined before they are cut.
                blocks = groupby(stored.blocks(wanted), key=lambda block: block[0])
                for table, same in blocks:
                    if states is None or table in states:
                        joined = (row for _, rows in same for row in rows)
                        yield from ((table, entry) for entry in _cut(joined, width))

    def lists(self, uid: str, name: str) -> list[Any]:
        """The items of an operator's list (split or union), subtask by subtask, as plain data."""
        operator = self.operator(uid)
        descriptor = next((s for s in operator.states if s.name == name), None)
        if descriptor is None:
            return []
        return [
            plain_value(item, descriptor.serializer)
            for subtask in operator.subtasks
            for item in subtask.lists.get(name, ())
        ]

    def damages(self, *, content: bool = True) -> list[str]:
        """What is wrong with its files, as sentences; none when all are there and whole.

        Without `content` only presence and length are looked at, with it checksums too, for which
        every file is read.
        """
        wanted = {file.path: file for file in self.manifest.files()}

        def look(path: str) -> str | None:
            handle = wanted[path]
            store, where = self._files.locate(handle)
            length = store.length(where)
            if length is None:
                return f"{path} is missing"
            if length != handle.length:
                return f"{path} has {length} bytes, not {handle.length}"
            if content:
                with tempfile.TemporaryDirectory(prefix="penstock-") as folder:
                    if store.download(where, Path(folder) / "file").crc32 != handle.crc32:
                        return f"{path} has another content: its checksum is not {handle.crc32:08x}"
            return None

        with ThreadPoolExecutor(_THREADS) as pool:
            return [found for found in pool.map(look, sorted(wanted)) if found is not None]


def _split(location: str) -> tuple[str, str]:
    """The root of a store and the folder of a snapshot in it, far enough up that a checkpoint's
    shared files lie below the root too."""
    scheme, separator, rest = location.partition("://")
    if separator and scheme != "file":
        bucket, _, folder = rest.partition("/")
        return f"{scheme}://{bucket}", folder
    full = Path(rest if separator else location).expanduser().absolute()
    return str(full.parent.parent), f"{full.parent.name}/{full.name}".strip("/")


def value_of(entry: Entry, descriptor: StateDescriptor, one: Callable[[bytes], Any]) -> Any:
    """What an entry's rows mean; `one` decodes a single value."""
    match descriptor.kind:
        case StateKind.LIST:
            return [one(value) for _, value in entry.rows]
        case StateKind.MAP:
            return {plain_map_key(sub, descriptor): one(value) for sub, value in entry.rows}
        case _:
            return one(entry.rows[0][1])


def _plain(descriptor: StateDescriptor) -> Callable[[bytes], Any]:
    return lambda data: plain_value(data, descriptor.serializer)


def _cut(rows: Rows, width: int) -> Iterator[Entry]:
    """Rows of one state, cut where the key (with its namespace) changes."""

    def prefix(row: tuple[bytes, bytes]) -> bytes:
        return row[0][: prefix_length(row[0], width=width)]

    for start, same in groupby(rows, key=prefix):
        yield Entry(
            group=group_of(start, width=width),
            key=start[width : key_length(start, width)],
            rows=tuple((row[len(start) :], _without_flags(value)) for row, value in same),
        )


def _without_flags(value: bytes) -> bytes:
    if value[:1] != PLAIN:
        raise Corrupt(
            f"a stored value has flags {value[:1].hex()}, which this Penstock does not know",
            fix="read it with the version of Penstock that wrote it, or a later one",
        )
    return value[1:]
