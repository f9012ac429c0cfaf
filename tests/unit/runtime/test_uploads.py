"""What becomes of the parts of checkpoints that a worker uploads."""

import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest

from penstock.core.errors import Rejected, Retryable
from penstock.core.handles import FileHandle, KeyedFormat, KeyedHandle, SubtaskSnapshot
from penstock.core.ids import AttemptNumber, CheckpointId, JobId, OperatorId, SubtaskId
from penstock.core.keygroups import KeyGroupRange
from penstock.core.snapshots import KeyedSource, OperatorPart, OperatorRestore
from penstock.network import frames
from penstock.network.frames import AnyFrame
from penstock.runtime.job_storage import JobStorage
from penstock.runtime.transfers import INLINE_BYTES_MAX, LocalCopies, Uploader
from penstock.runtime.uploads import Uploads
from penstock.storage.memory import MemoryStore
from penstock.storage.store import Stored

COUNTS = OperatorId("counts")
JOB = JobId("counting")
T = TypeVar("T")


class FullStore(MemoryStore):
    """Takes so many uploads, and refuses the next."""

    room = 100

    def upload(self, path: str, source: Path) -> Stored:
        if self.room == 0:
            raise Rejected("the bucket is full", where="memory://", fix="make room")
        self.room -= 1
        return super().upload(path, source)


class Later:
    """Work that is done when the test says so, one piece after the other."""

    def __init__(self) -> None:
        self._waiting: list[Callable[[Callable[[], None]], None]] = []

    def __call__(self, work: Callable[[], T], then: Callable[[T], None], /) -> None:
        def do(meanwhile: Callable[[], None]) -> None:
            result = work()
            meanwhile()
            then(result)

        self._waiting.append(do)

    def do(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """All that waits, and all that comes of it; `meanwhile` happens before that is heard of."""
        while self._waiting:
            self._waiting.pop(0)(meanwhile)


@dataclass
class Scene:
    """The uploads of one worker, with what they told and what they left where."""

    folder: Path
    keeps_copies: bool = True
    told: list[AnyFrame] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = FullStore(lambda: 0)
        self.beside = Later()
        self.copies = LocalCopies(self.folder / "copies", JOB)
        storage = JobStorage(JOB, self.store, self.store, self.folder)
        self._storage = storage
        self.uploads = Uploads(
            storage,
            self.copies if self.keeps_copies else None,
            tell=self.told.append,
            beside=self.beside,
        )
        self.begin()

    def begin(self, attempt: int = 1) -> None:
        """Another attempt."""
        self.uploads.begin(
            Uploader(
                self._storage,
                AttemptNumber(attempt),
                max_parallelism=128,
                is_incremental=True,
                keeps_in_manifest=False,
            )
        )

    def part(self, n: int, **files: str) -> frames.Snapshotted:
        """A database as a child leaves it on the disk."""
        path = self.folder / f"chk-{n}"
        path.mkdir()
        for name, content in (files or {"a.sst": "rows", "CURRENT": "MANIFEST-1"}).items():
            (path / name).write_text(content)
        handle = KeyedHandle(KeyedFormat.ROCKSDB, KeyGroupRange(0, 128))
        return frames.Snapshotted(
            AttemptNumber(1),
            CheckpointId(n),
            SubtaskId(COUNTS, 0),
            parts={COUNTS: OperatorPart(SubtaskSnapshot(handle))},
            copies={COUNTS: str(path)},
        )

    @property
    def stored(self) -> list[str]:
        """The objects in the store."""
        return [listed.path for listed in self.store.list("")]

    @property
    def on_disk(self) -> list[str]:
        """The databases that lie where the child left them."""
        return sorted(path.name for path in self.folder.glob("chk-*"))


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def trigger(n: int, base: int | None = None, savepoint: str | None = None) -> frames.Trigger:
    return frames.Trigger(
        AttemptNumber(1), CheckpointId(n), CheckpointId(base) if base else None, savepoint
    )


def test_an_uploaded_part_is_acknowledged_with_its_files_and_stays_as_a_local_copy(scene: Scene):
    scene.uploads.triggered(trigger(1))
    scene.uploads.snapshotted(scene.part(1))
    assert scene.told == []
    scene.beside.do()
    (acked,) = scene.told
    assert isinstance(acked, frames.Acked)
    assert sorted(acked.files) == scene.stored
    assert acked.bytes_new == len("rows" + "MANIFEST-1")
    keyed = acked.parts[COUNTS].snapshot.keyed
    assert keyed is not None
    assert scene.copies.find(keyed) is not None
    assert scene.on_disk == []


def test_without_local_copies_nothing_stays_on_the_disk(tmp_path: Path):
    scene = Scene(tmp_path, keeps_copies=False)
    scene.uploads.triggered(trigger(1))
    scene.uploads.snapshotted(scene.part(1))
    scene.beside.do()
    assert len(scene.stored) == 2
    assert scene.on_disk == []
    assert scene.copies.listed() == ()


def test_a_part_on_another_file_system_is_copied_beside_the_main_thread(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "rename", refuse)
    scene.uploads.triggered(trigger(1))
    scene.uploads.snapshotted(scene.part(1))
    kept: list[bool] = []
    notes = scene.folder / "copies"
    scene.beside.do(meanwhile=lambda: kept.append(any(notes.glob("chk-1/*/copy.json"))))
    (acked,) = scene.told
    assert isinstance(acked, frames.Acked)
    handle = acked.parts[COUNTS].snapshot.keyed
    assert handle is not None
    assert scene.copies.find(handle) is not None
    assert (kept, scene.on_disk) == ([False, True], [])


def test_a_disk_without_room_for_a_local_copy_costs_that_copy_only(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    part = scene.part(1)
    monkeypatch.setattr(os, "rename", refuse)
    monkeypatch.setattr(shutil, "copytree", refuse)
    scene.uploads.triggered(trigger(1))
    scene.uploads.snapshotted(part)
    scene.beside.do()
    (acked,) = scene.told
    assert isinstance(acked, frames.Acked)
    assert scene.on_disk == []
    assert list(scene.folder.glob("copies/chk-1/*")) == []


def test_a_part_that_was_written_before_its_trigger_came_goes_up_with_it(scene: Scene):
    scene.uploads.snapshotted(scene.part(1))
    scene.beside.do()
    assert scene.stored == []
    scene.uploads.triggered(trigger(1))
    scene.beside.do()
    assert isinstance(scene.told[0], frames.Acked)


def test_what_the_base_has_is_referenced_and_not_uploaded_again(scene: Scene):
    for n, base in ((1, None), (2, 1)):
        scene.uploads.triggered(trigger(n, base))
        scene.uploads.snapshotted(scene.part(n))
        scene.beside.do()
        scene.uploads.completed(CheckpointId(n))
    first, second = scene.told
    assert isinstance(first, frames.Acked)
    assert isinstance(second, frames.Acked)
    assert second.bytes_new == len("MANIFEST-1")
    shared = {file for file in first.files if "/shared/" in file}
    assert shared
    assert not shared & set(second.files)


def test_a_part_builds_on_its_base_and_not_on_one_that_was_given_up_since(scene: Scene):
    scene.uploads.triggered(trigger(1))
    scene.uploads.snapshotted(scene.part(1))
    scene.beside.do()
    scene.uploads.completed(CheckpointId(1))
    both = {"a.sst": "rows", "b.sst": "more"}
    scene.uploads.triggered(trigger(2, base=1))
    scene.uploads.snapshotted(scene.part(2, **both))
    scene.beside.do()
    given_up = scene.told[-1]
    assert isinstance(given_up, frames.Acked)
    scene.store.delete(given_up.files)  # as the coordinator does
    scene.uploads.triggered(trigger(3, base=1))
    scene.uploads.snapshotted(scene.part(3, **both))
    scene.beside.do()
    third = scene.told[-1]
    assert isinstance(third, frames.Acked)
    keyed = third.parts[COUNTS].snapshot.keyed
    assert keyed is not None
    assert {f"{JOB}/{file.path}" for file in keyed.files} <= set(scene.stored)
    assert third.bytes_new == len("more")


def test_a_file_of_a_known_name_with_another_length_is_uploaded(scene: Scene):
    for n, content in ((1, "rows"), (2, "other rows")):
        scene.uploads.triggered(trigger(n, base=n - 1))
        scene.uploads.snapshotted(scene.part(n, **{"a.sst": content}))
        scene.beside.do()
        scene.uploads.completed(CheckpointId(n))
    second = scene.told[-1]
    assert isinstance(second, frames.Acked)
    assert second.bytes_new == len("other rows")


def test_a_base_older_than_the_newest_completed_is_known_no_more(scene: Scene):
    for n in (1, 2):
        scene.uploads.triggered(trigger(n))
        scene.uploads.snapshotted(scene.part(n))
        scene.beside.do()
        scene.uploads.completed(CheckpointId(n))
    scene.uploads.triggered(trigger(3, base=1))
    scene.uploads.snapshotted(scene.part(3))
    scene.beside.do()
    third = scene.told[-1]
    assert isinstance(third, frames.Acked)
    assert third.bytes_new == len("rows" + "MANIFEST-1")


def test_a_database_that_was_restored_from_a_checkpoint_goes_on_from_its_files(scene: Scene):
    scene.uploads.triggered(trigger(1))
    scene.uploads.snapshotted(scene.part(1))
    scene.beside.do()
    (first,) = scene.told
    assert isinstance(first, frames.Acked)
    keyed = first.parts[COUNTS].snapshot.keyed
    assert keyed is not None
    scene.uploads.end()
    scene.begin(attempt=2)
    source = KeyedSource(keyed, keyed.groups, f"{JOB}/")
    restore = OperatorRestore(keyed=(source,), local=f"{JOB}/chk-1/_metadata")
    scene.uploads.restored({COUNTS: {0: restore}})
    scene.uploads.triggered(trigger(2, base=1))
    scene.uploads.snapshotted(scene.part(2))
    scene.beside.do()
    second = scene.told[-1]
    assert isinstance(second, frames.Acked)
    assert second.bytes_new == len("MANIFEST-1")


def test_what_was_restored_from_another_job_is_uploaded_whole_although_its_number_is_the_base(
    scene: Scene,
):
    file = FileHandle("shared/1-7-0123", len("rows"), 0, shared=True, local_name="a.sst")
    keyed = KeyedHandle(KeyedFormat.ROCKSDB, KeyGroupRange(0, 128), files=(file,))
    source = KeyedSource(keyed, keyed.groups, "another/")
    restore = OperatorRestore(keyed=(source,), local="another/chk-7/_metadata")
    scene.uploads.restored({COUNTS: {0: restore}})
    scene.uploads.triggered(trigger(8, base=7))
    scene.uploads.snapshotted(scene.part(8))
    scene.beside.do()
    (first,) = scene.told
    assert isinstance(first, frames.Acked)
    assert first.bytes_new == len("rows" + "MANIFEST-1")


def test_a_refused_upload_is_declined_with_what_to_do_and_leaves_nothing(scene: Scene):
    scene.store.room = 1
    scene.uploads.triggered(trigger(1))
    scene.uploads.snapshotted(scene.part(1))
    scene.beside.do()
    (declined,) = scene.told
    assert isinstance(declined, frames.Declined)
    assert declined.reason == "the bucket is full; memory://; make room"
    assert (scene.stored, scene.on_disk) == ([], [])


def test_a_disk_that_cannot_be_read_is_declined_as_that(scene: Scene):
    part = scene.part(1)
    for file in (scene.folder / "chk-1").iterdir():
        file.unlink()
    (scene.folder / "chk-1").rmdir()
    scene.uploads.triggered(trigger(1))
    scene.uploads.snapshotted(part)
    scene.beside.do()
    (declined,) = scene.told
    assert isinstance(declined, frames.Declined)
    assert declined.reason.startswith("the worker's disk: ")


def test_what_was_given_up_while_it_went_up_is_not_told_and_is_deleted(scene: Scene):
    scene.uploads.triggered(trigger(1))
    scene.uploads.snapshotted(scene.part(1))
    scene.uploads.aborted(CheckpointId(1))
    scene.beside.do()
    assert scene.told == []
    assert (scene.stored, scene.on_disk) == ([], [])


def test_what_was_given_up_when_all_of_it_was_there_is_not_told_and_is_deleted(scene: Scene):
    scene.uploads.triggered(trigger(1))
    scene.uploads.snapshotted(scene.part(1))
    scene.beside.do(meanwhile=lambda: scene.uploads.aborted(CheckpointId(1)))
    assert scene.told == []
    assert (scene.stored, scene.on_disk) == ([], [])


def test_a_part_of_a_savepoint_goes_into_its_folder_and_is_no_local_copy(scene: Scene):
    file = scene.folder / "chk-1"
    file.write_bytes(bytes(INLINE_BYTES_MAX + 1))
    handle = KeyedHandle(KeyedFormat.CANONICAL, KeyGroupRange(0, 128))
    part = frames.Snapshotted(
        AttemptNumber(1),
        CheckpointId(1),
        SubtaskId(COUNTS, 0),
        parts={COUNTS: OperatorPart(SubtaskSnapshot(handle))},
        copies={COUNTS: str(file)},
    )
    scene.uploads.triggered(trigger(1, savepoint="savepoint-1/"))
    scene.uploads.snapshotted(part)
    scene.beside.do()
    assert isinstance(scene.told[0], frames.Acked)
    assert [path.partition("/")[0] for path in scene.stored] == ["savepoint-1"]
    assert (scene.copies.listed(), scene.on_disk) == ((), [])


def test_files_that_cannot_be_deleted_are_left_for_a_sweep(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
):
    def refuse(_: object) -> None:
        raise Retryable("the store does not answer")

    monkeypatch.setattr(scene.store, "delete", refuse)
    scene.store.room = 1
    scene.uploads.triggered(trigger(1))
    scene.uploads.snapshotted(scene.part(1))
    scene.beside.do()
    assert len(scene.stored) == 1
    assert isinstance(scene.told[0], frames.Declined)


def test_an_acknowledgement_that_comes_after_the_attempts_end_is_told_to_nobody(scene: Scene):
    scene.uploads.triggered(trigger(1))
    scene.uploads.snapshotted(scene.part(1))
    scene.uploads.end()
    scene.begin(attempt=2)
    scene.beside.do()
    assert scene.told == []
    assert (scene.stored, scene.on_disk) == ([], [])


def test_a_part_of_a_checkpoint_that_is_over_goes_from_the_disk(scene: Scene):
    scene.uploads.snapshotted(scene.part(1))
    scene.uploads.snapshotted(scene.part(2))
    scene.uploads.aborted(CheckpointId(1))
    assert scene.on_disk == ["chk-2"]
    scene.uploads.completed(CheckpointId(2))
    assert scene.on_disk == []


def test_a_checkpoint_is_awaited_from_its_trigger_until_it_or_a_later_one_is_over(scene: Scene):
    assert not scene.uploads.is_awaited
    scene.uploads.triggered(trigger(2))
    scene.uploads.aborted(CheckpointId(1))
    assert scene.uploads.is_awaited
    scene.uploads.completed(CheckpointId(2))
    assert not scene.uploads.is_awaited
    scene.uploads.triggered(trigger(3))
    scene.uploads.end()
    assert not scene.uploads.is_awaited
