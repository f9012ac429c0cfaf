"""A local copy stands in for the store only when it is exactly what the store has."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from zlib import crc32

import pytest

from penstock.core.handles import FileHandle, KeyedFormat, KeyedHandle, SubtaskSnapshot
from penstock.core.ids import CheckpointId, JobId, OperatorId, SubtaskId
from penstock.core.keygroups import KeyGroupRange
from penstock.core.snapshots import OperatorPart
from penstock.network import frames
from penstock.runtime.transfers import LocalCopies

OPERATOR = OperatorId("check")
CONTENT = {"000012.sst": b"rows of many keys", "CURRENT": b"MANIFEST-000005\n"}
FILES = tuple(
    FileHandle(f"shared/1-4-{name}", len(data), crc32(data), name.endswith(".sst"), name)
    for name, data in CONTENT.items()
)
HANDLE = KeyedHandle(KeyedFormat.ROCKSDB, KeyGroupRange(0, 64), FILES)


@pytest.fixture
def copies(tmp_path: Path) -> LocalCopies:
    copies = LocalCopies(tmp_path / "copies", JobId("counting"))
    _keep(copies, tmp_path / "written", HANDLE, CONTENT)
    return copies


def _keep(
    copies: LocalCopies, written: Path, handle: KeyedHandle, content: dict[str, bytes]
) -> None:
    written.mkdir()
    for name, data in content.items():
        (written / name).write_bytes(data)
    acked = frames.Acked(
        attempt=1,
        checkpoint=CheckpointId(4),
        subtask=SubtaskId(OPERATOR, 0),
        parts={OPERATOR: OperatorPart(SubtaskSnapshot(handle))},
        files=(),
        bytes_new=0,
    )
    copies.keep(acked, {OPERATOR: str(written)})


def test_the_copy_of_exactly_this_snapshot_is_used(copies: LocalCopies) -> None:
    path = copies.find(HANDLE)
    assert path is not None
    assert {p.name: p.read_bytes() for p in path.iterdir()} == CONTENT


def test_the_copy_of_another_attempt_is_not_used(copies: LocalCopies) -> None:
    others = tuple(replace(f, path=f.path.replace("/1-", "/2-")) for f in FILES)
    assert copies.find(replace(HANDLE, files=others)) is None


def test_the_copy_of_another_checkpoint_is_not_used(copies: LocalCopies) -> None:
    others = tuple(replace(f, path=f.path.replace("1-4-", "1-5-")) for f in FILES)
    assert copies.find(replace(HANDLE, files=others)) is None


def test_the_copy_of_another_range_is_not_used(copies: LocalCopies) -> None:
    assert copies.find(replace(HANDLE, groups=KeyGroupRange(0, 65))) is None


def test_what_is_inline_has_no_copy(copies: LocalCopies) -> None:
    assert (
        copies.find(KeyedHandle(KeyedFormat.CANONICAL, KeyGroupRange(0, 64), inline=b"x")) is None
    )


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: (data / "000012.sst").write_bytes(b"rows of mamy keys"),
        lambda data: (data / "000012.sst").write_bytes(b"rows"),
        lambda data: (data / "CURRENT").unlink(),
        lambda data: (data / "000013.sst").write_bytes(b"more"),
        lambda data: (data.parent / "copy.json").write_text('{"format": "rocks'),
        lambda data: (data.parent / "copy.json").unlink(),
    ],
    ids=["another byte", "cut", "missing", "one too many", "torn handle", "no handle"],
)
def test_a_damaged_copy_is_not_used(copies: LocalCopies, damage: Callable[[Path], None]) -> None:
    path = copies.find(HANDLE)
    assert path is not None
    damage(path)
    assert copies.find(HANDLE) is None


def test_a_number_used_again_has_the_copy_of_the_later_attempt(
    copies: LocalCopies, tmp_path: Path
) -> None:
    data = b"MANIFEST-000007\n"
    file = FileHandle("chk-4/2-4-CURRENT", len(data), crc32(data), local_name="CURRENT")
    later = replace(HANDLE, files=(file,))
    _keep(copies, tmp_path / "later", later, {"CURRENT": data})
    path = copies.find(later)
    assert path is not None
    assert [p.name for p in path.iterdir()] == ["CURRENT"]
    assert copies.find(HANDLE) is None
