"""Storages as jobs leave them, made by the library's own parts, and a way to call the command line."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from penstock.cli.main import run
from penstock.core import keygroups, paths
from penstock.core.descriptors import StateDescriptor, StateKind
from penstock.core.handles import FileHandle, KeyedFormat, KeyedHandle, SubtaskSnapshot
from penstock.core.ids import AttemptNumber, CheckpointId, JobId, OperatorId
from penstock.core.keys import KEY_FORMAT, encode_key
from penstock.core.log import Attempt, End, EndKind, Entry, EntryKind, SnapshotRef
from penstock.core.manifest import Manifest, OperatorSnapshot, SnapshotKind
from penstock.core.rows import PLAIN, ROW_FORMAT, group_width, row_prefix
from penstock.state.heap import open_heap
from penstock.state.rocks import open_rocks
from penstock.state.serializers import serializer_for
from penstock.storage.location import open_store

JOB = JobId("wordcount")
GROUPS = 128
AT_MS = 1_795_229_950_000  # 2026-11-21T02:59:10Z
COUNT = StateDescriptor("count", StateKind.VALUE, "msgpack/1", "int")
POSITION = StateDescriptor("position", StateKind.SPLIT_LIST, "json/1", "FileSplit v1")


@dataclass(frozen=True)
class Answer:
    """What one command line printed, and its exit code."""

    out: str
    err: str
    code: int


@pytest.fixture
def penstock(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Calls the command line in an empty folder, with an empty registry of running jobs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "registry"))
    monkeypatch.delenv("PENSTOCK_TOKEN", raising=False)
    monkeypatch.delenv("PENSTOCK_TRACEBACK", raising=False)

    def call(*arguments: str) -> Answer:
        capfd.readouterr()
        code = run(list(arguments))
        out, err = capfd.readouterr()
        return Answer(out, err, code)

    return call


class Made:
    """A storage in a folder: `checkpoints/` and `savepoints/`, as `penstock run` lays them out."""

    def __init__(self, root: Path, scratch: Path) -> None:
        self.root = root
        self.checkpoints = open_store(str(root / "checkpoints"))
        self.savepoints = open_store(str(root / "savepoints"))
        self._scratch = scratch
        self._retained: list[SnapshotRef] = []
        self._seq = 0
        self._temporary = 0

    def checkpoint(
        self,
        number: int,
        counts: Mapping[Any, int],
        *,
        parallelism: int = 2,
        format: KeyedFormat = KeyedFormat.ROCKSDB,
        key_schema: str = "str",
        retain: bool = True,
    ) -> Manifest:
        """A checkpoint of a word count, retained by the job's log."""
        id = CheckpointId(number)
        subtasks = tuple(
            self._keyed(
                counts,
                i,
                parallelism,
                format,
                lambda nonce: paths.shared_file(JOB, AttemptNumber(1), id, nonce),
            )
            for i in range(parallelism)
        )
        manifest = _manifest(SnapshotKind.CHECKPOINT, number, parallelism, subtasks, key_schema)
        path = paths.checkpoint_metadata(JOB, id)
        ref = self._put(self.checkpoints, path, path, manifest)
        if retain:
            self._retained.append(ref)
            self.entry(EntryKind.COMPLETED)
        return manifest

    def savepoint(self, request_id: str, number: int, counts: Mapping[Any, int]) -> str:
        """A savepoint in the canonical format; its folder's name."""
        folder = paths.savepoint_folder(JOB, request_id)
        subtasks = tuple(
            self._keyed(
                counts, i, 2, KeyedFormat.CANONICAL, lambda nonce: folder + nonce, savepoint=folder
            )
            for i in range(2)
        )
        manifest = _manifest(
            SnapshotKind.SAVEPOINT, number, 2, subtasks, "str", request_id=request_id
        )
        self._put(self.savepoints, folder + paths.METADATA, "", manifest)
        return folder.rstrip("/")

    def entry(self, kind: EntryKind, *, attempt: int = 1, end: End | None = None) -> Entry:
        """The next entry of the job's log."""
        self._seq += 1
        entry = Entry(
            seq=self._seq,
            nonce=str(self._seq),
            at_ms=AT_MS,
            kind=kind,
            owner="local/test",
            job_nonce="1",
            attempt=Attempt(AttemptNumber(attempt), "r1", 2, GROUPS, (0, 1), CheckpointId(99)),
            retained=tuple(self._retained),
            end=end,
        )
        self.checkpoints.put(paths.log_entry(JOB, self._seq), entry.to_bytes())
        return entry

    def finished(self) -> None:
        """The entry that ends the run, committed."""
        self.entry(EntryKind.ENDED, end=End(EndKind.FINISHED, self._retained[-1], committed=True))

    def _put(self, store: Any, path: str, ref_path: str, manifest: Manifest) -> SnapshotRef:
        data = manifest.to_bytes()
        store.put(path, data)
        return SnapshotRef(manifest.checkpoint, ref_path, hashlib.sha256(data).hexdigest())

    def _keyed(
        self,
        counts: Mapping[Any, int],
        index: int,
        parallelism: int,
        format: KeyedFormat,
        name: Callable[[str], str],
        *,
        savepoint: str = "",
    ) -> SubtaskSnapshot:
        owned = keygroups.owned_range(index, parallelism=parallelism, max_parallelism=GROUPS)
        opened = open_rocks if format is KeyedFormat.ROCKSDB else open_heap
        self._temporary += 1
        folder = self._scratch / f"{self._temporary}"
        folder.mkdir(parents=True)
        backend = opened(folder, groups=owned, max_parallelism=GROUPS, options={})
        backend.open_table("count")
        encode = serializer_for(int).encode
        backend.write("count", [
            (row_prefix(group, key, width=group_width(GROUPS)), PLAIN + encode(value))
            for word, value in counts.items()
            for key in [encode_key(word)]
            for group in [keygroups.key_group(key, max_parallelism=GROUPS)]
            if group in owned
        ])  # fmt: skip
        copied = backend.copy_out(folder / "copy")
        backend.close()
        files = sorted(copied.path.iterdir()) if copied.path.is_dir() else [copied.path]
        store = self.savepoints if savepoint else self.checkpoints
        handles = []
        for file in files:
            path = name(f"{self._temporary}-{file.name}")
            stored = store.upload(path, file)
            own = path.removeprefix(savepoint or f"{JOB}/")
            handles.append(
                FileHandle(
                    own,
                    stored.length,
                    stored.crc32,
                    shared="/shared/" in path,
                    local_name=file.name if copied.path.is_dir() else None,
                )
            )
        return SubtaskSnapshot(
            keyed=KeyedHandle(copied.format, owned, tuple(handles), offsets=copied.offsets)
        )


def _manifest(
    kind: SnapshotKind,
    number: int,
    parallelism: int,
    subtasks: Sequence[SubtaskSnapshot],
    key_schema: str,
    *,
    request_id: str | None = None,
) -> Manifest:
    split = b'{"path": "shakespeare.txt", "offset": 1115394}'
    return Manifest(
        kind=kind,
        job=JOB,
        attempt=AttemptNumber(1),
        checkpoint=CheckpointId(number),
        at_ms=AT_MS + number * 1000,
        parallelism=parallelism,
        max_parallelism=GROUPS,
        hash_name=keygroups.HASH_NAME,
        key_format=KEY_FORMAT,
        row_format=ROW_FORMAT,
        operators={
            OperatorId("counts"): OperatorSnapshot(
                parallelism, (COUNT,), key_schema, tuple(subtasks)
            ),
            OperatorId("lines"): OperatorSnapshot(
                parallelism,
                (POSITION,),
                None,
                tuple(
                    SubtaskSnapshot(lists={"position": (split,) if i == 0 else ()})
                    for i in range(parallelism)
                ),
            ),
        },
        request_id=request_id,
        duration_ms=200,
    )


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """An empty storage in `./state`."""
    return Made(tmp_path / "state", tmp_path / "scratch")


@pytest.fixture
def words() -> dict[str, int]:
    """A hundred words with counts; two have their quirks."""
    return {f"word{i}": i + 1 for i in range(98)} | {"the": 6287, "it's": 5}
