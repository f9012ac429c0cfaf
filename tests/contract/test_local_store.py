"""What only a store in a folder can get wrong."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.core.errors import Rejected
from penstock.storage.local import LocalStore
from penstock.storage.location import check_writable, open_store

DAY_S = 24 * 3600


def leftover(root: Path, *, age_s: float) -> Path:
    """An unfinished file that a killed process left, last touched that long ago."""
    file = root / ".penstock-tmp" / f"left-{age_s}"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"half an obj")
    now = file.stat().st_mtime
    os.utime(file, (now - age_s, now - age_s))
    return file


def test_unfinished_files_are_in_no_listing_and_no_object(tmp_path: Path):
    inner, outer = LocalStore(tmp_path / "job"), LocalStore(tmp_path)
    leftover(tmp_path / "job", age_s=0)
    inner.put("a", b"")

    assert [f.path for f in inner.list("")] == ["a"]
    assert list(inner.list(".penstock-tmp")) == []
    assert [f.path for f in outer.list("")] == ["job/a"]
    with pytest.raises(Rejected, match="unfinished"):
        inner.get(".penstock-tmp/left-0")


def test_no_unfinished_file_stays_behind(tmp_path: Path):
    store = LocalStore(tmp_path)
    store.put("a", b"")
    store.put_if_absent("a", b"")
    store.put_if_absent("b", b"")
    (tmp_path / "a-folder").mkdir()
    with contextlib.suppress(Rejected):
        store.put("a-folder", b"")

    assert list((tmp_path / ".penstock-tmp").iterdir()) == []


def test_what_a_killed_process_left_goes_after_a_day_untouched(tmp_path: Path):
    old = leftover(tmp_path, age_s=DAY_S + 60)
    young = leftover(tmp_path, age_s=DAY_S - 60)

    LocalStore(tmp_path).put("a", b"")

    assert not old.exists()
    assert young.exists()


def test_deleting_the_last_object_prunes_its_empty_folders_and_no_others(tmp_path: Path):
    root = tmp_path / "checkpoints"
    store = LocalStore(root)
    for path in ("job/chk-1/a", "job/chk-1/b", "job/chk-2/deep/er/c", "other/x"):
        store.put(path, b"")

    store.delete(["job/chk-1/a", "job/chk-2/deep/er/c"])
    assert sorted(f.name for f in (root / "job").iterdir()) == ["chk-1"]
    store.delete(["job/chk-1/b"])
    assert not (root / "job").exists()
    assert (root / "other").exists()
    store.delete(["other/x"])
    assert root.exists()


def test_a_reader_makes_no_folder(tmp_path: Path):
    store = LocalStore(tmp_path / "new")
    store.get("a")
    list(store.list(""))
    store.delete(["a"])

    assert list(tmp_path.iterdir()) == []


def test_exactly_one_process_of_several_wins_a_name(tmp_path: Path):
    program = (
        "import sys; from pathlib import Path; from penstock.storage.local import LocalStore\n"
        "store = LocalStore(Path(sys.argv[1])); sys.stdin.readline()\n"
        "print(''.join(str(int(store.put_if_absent(f'job/{n}', sys.argv[2].encode())))"
        " for n in range(50)))"
    )
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path), str(i)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(3)
    ]
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    won = [racer.communicate(timeout=30)[0].strip() for racer in racers]

    store = LocalStore(tmp_path)
    for n in range(50):
        winners = [i for i, flags in enumerate(won) if flags[n] == "1"]
        assert len(winners) == 1, (n, won)
        assert store.get(f"job/{n}") == b"%d" % winners[0]


def calls(store: LocalStore, file: Path) -> list[Callable[[], object]]:
    return [
        lambda: store.put("job/a", b""),
        lambda: store.put_if_absent("job/a", b""),
        lambda: store.upload("job/a", file),
        lambda: check_writable(store),
    ]


def assert_rejected(root: Path, file: Path, match: str) -> None:
    file.write_bytes(b"")
    for call in calls(LocalStore(root), file):
        with pytest.raises(Rejected, match=match) as e:
            call()
        assert str(root) in str(e.value.where)
        assert e.value.fix


def test_a_file_where_the_folder_should_be_is_rejected(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"mine")
    assert_rejected(tmp_path / "file", tmp_path / "x", "cannot be used")
    assert_rejected(tmp_path / "file" / "below", tmp_path / "x", "cannot be used")
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_a_folder_nobody_may_write_is_rejected(tmp_path: Path):
    assert_rejected(Path("/sys/penstock"), tmp_path / "x", "not allowed")


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_rejected(tmp_path: Path):
    root = tmp_path / "closed"
    root.mkdir(mode=0o500)
    assert_rejected(root, tmp_path / "x", "not allowed")


def test_an_object_where_a_folder_is_needed_is_rejected(tmp_path: Path):
    store = LocalStore(tmp_path)
    store.put("job", b"")

    with pytest.raises(Rejected, match="cannot be used"):
        store.put("job/a", b"")
    with pytest.raises(Rejected, match="cannot be used"):
        store.put_if_absent("job/a", b"")


def test_a_name_too_long_for_the_file_system_is_rejected(tmp_path: Path):
    with pytest.raises(Rejected, match="cannot be used"):
        LocalStore(tmp_path).put("x" * 300, b"")


@pytest.mark.parametrize(
    ("url", "root"),
    [
        ("file:///var/lib/jobs", "/var/lib/jobs"),
        ("/var/lib/jobs/", "/var/lib/jobs"),
        ("file://state", "BASE/state"),
        ("file://./state/x", "BASE/state/x"),
        ("state", "BASE/state"),
        ("with blank/ü", "BASE/with blank/ü"),
        (".", "BASE"),
    ],
)
def test_a_folder_is_absolute_or_below_the_base(tmp_path: Path, url: str, root: str):
    assert open_store(url, base=tmp_path).url == "file://" + root.replace("BASE", str(tmp_path))


def test_without_a_base_a_folder_is_below_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    store = open_store("state")
    monkeypatch.chdir("/")

    assert store.url == f"file://{tmp_path}/state"


@pytest.mark.parametrize("url", ["", "file://", "s3://", "s3:///x", "gs://bucket/x", "memory://"])
def test_another_kind_of_url_is_rejected_with_what_would_do(url: str):
    with pytest.raises(Rejected, match="not a place for checkpoints") as e:
        open_store(url)
    assert "s3://bucket/prefix" in str(e.value.fix)


def test_opening_a_folder_does_not_load_boto3():
    program = (
        "import sys; from penstock.storage.location import open_store; open_store('x');"
        "sys.exit('boto3' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("call", ["link", "replace"])
def test_content_is_durable_before_its_name_and_its_name_before_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
):
    deeds: list[tuple[str, Path]] = []
    fsync, place = os.fsync, getattr(os, call)

    def recorded_fsync(descriptor: int) -> None:
        fsync(descriptor)
        deeds.append(("durable", Path(f"/proc/self/fd/{descriptor}").readlink()))

    def recorded_place(source: Path, target: Path) -> None:
        place(source, target)
        deeds.append(("named", Path(source)))

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, call, recorded_place)
    store = LocalStore(tmp_path)
    (store.put_if_absent if call == "link" else store.put)("job/log/1", b"content")

    (content, unfinished), (named, source), *folders = deeds
    assert (content, named) == ("durable", "named")
    assert unfinished == source
    assert folders == [("durable", tmp_path / f) for f in ("job/log", "job", "")]


def test_who_finds_a_name_taken_has_it_durable_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    LocalStore(tmp_path).put("job/log/1", b"")
    synced = []
    monkeypatch.setattr(os, "fsync", lambda d: synced.append(Path(f"/proc/self/fd/{d}").readlink()))

    assert LocalStore(tmp_path).put_if_absent("job/log/1", b"") is False
    assert tmp_path / "job/log" in synced
