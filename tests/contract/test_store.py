"""The promises of `penstock.storage.store.Store`, held by every adapter."""

import itertools
import os
import random
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from penstock.core.errors import Corrupt, PenstockError, Rejected
from penstock.storage.local import LocalStore
from penstock.storage.location import check_writable, open_store
from penstock.storage.memory import MemoryStore
from penstock.storage.store import Store

MiB = 1 << 20
NASTY_NAMES = [
    "with blank/a b.txt",
    "percent/%2e%2F%41",
    "plus/a+b&c=d?e#f",
    "quotes/'single'\"double\"",
    "brackets/<a>[b]{c}",
    "unicode/Größe-日本-🙂",
    "dots/.hidden",
    "dots/..two",
    "star/*",
    "backslash/a\\b",
    "long/" + "x" * 200,
]


@pytest.fixture(params=["memory", "local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    match request.param:
        case "memory":
            return MemoryStore(itertools.count(1).__next__)
        case "local":
            return LocalStore(tmp_path / "not" / "there yet")
        case _:
            new_bucket = request.getfixturevalue("new_bucket")
            return open_store(f"s3://{new_bucket()}/some/folder")


def paths(store: Store, prefix: str = "") -> list[str]:
    return [found.path for found in store.list(prefix)]


def all_at_once(call: Callable[[int], object], threads: int) -> list[object]:
    """What `call(i)` returns in each of several threads that start at the same moment."""
    barrier = threading.Barrier(threads)

    def run(i: int) -> object:
        barrier.wait(10)
        return call(i)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(run, range(threads)))


@contextmanager
def beside(work: Callable[[int], object]) -> Iterator[None]:
    """Another thread calls work(0), work(1), … until the block ends; its error is ours."""
    stop = threading.Event()

    def run() -> None:
        for n in itertools.count():
            if stop.is_set():
                return
            work(n)

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run)
        try:
            yield
        finally:
            stop.set()
        running.result(30)


def test_what_was_put_is_read_back(store: Store):
    store.put("job/a", b"one")
    store.put("job/empty", b"")

    assert store.get("job/a") == b"one"
    assert store.length("job/a") == 3
    assert store.get("job/empty") == b""
    assert store.length("job/empty") == 0


def test_put_replaces(store: Store):
    store.put("a", b"one")
    store.put("a", b"three")

    assert store.get("a") == b"three"
    assert paths(store) == ["a"]


def test_what_is_not_there_is_none(store: Store, tmp_path: Path):
    store.put("job/chk-1/x", b"")

    for path in ("other", "job", "job/chk-1", "job/chk-1/x2", "job/chk-1/x/below"):
        assert store.get(path) is None, path
        assert store.length(path) is None, path


def test_a_download_of_what_is_not_there_is_corrupt_and_leaves_no_file(
    store: Store, tmp_path: Path
):
    store.put("job/a", b"")
    for path in ("job/b", "job", "job/a/below"):
        with pytest.raises(Corrupt, match="missing") as e:
            store.download(path, tmp_path / "fetched")
        assert path in str(e.value.where)
    assert not (tmp_path / "fetched").exists()


def test_put_if_absent_keeps_the_first(store: Store):
    assert store.put_if_absent("job/log/1", b"first") is True
    assert store.put_if_absent("job/log/1", b"second") is False
    assert store.put_if_absent("job/log/1", b"first") is False
    assert store.get("job/log/1") == b"first"


def test_put_if_absent_gives_way_to_a_plain_put_too(store: Store):
    store.put("a", b"plain")

    assert store.put_if_absent("a", b"late") is False
    assert store.get("a") == b"plain"


def test_of_eight_who_race_for_a_name_exactly_one_wins(store: Store):
    for number in range(10):
        path = f"job/log/{number}"
        won = all_at_once(lambda i, path=path: store.put_if_absent(path, b"%d" % i * 1000), 8)

        assert won.count(True) == 1, (number, won)
        assert store.get(path) == b"%d" % won.index(True) * 1000


def test_a_deleted_name_can_be_created_again(store: Store):
    store.put_if_absent("job/a", b"one")
    store.delete(["job/a"])

    assert store.put_if_absent("job/a", b"two") is True
    assert store.get("job/a") == b"two"


def test_a_listing_sees_every_earlier_write(store: Store):
    for number in range(20):
        store.put_if_absent(f"job/log/{number:020}.json", b"x" * number)

        found = list(store.list("job/log/"))
        assert [f.path for f in found] == [f"job/log/{n:020}.json" for n in range(number + 1)]
        assert [f.length for f in found] == list(range(number + 1))


def test_a_listing_sees_no_earlier_delete(store: Store):
    for name in "abc":
        store.put(f"job/{name}", b"")
    store.delete(["job/b"])

    assert paths(store, "job/") == ["job/a", "job/c"]


def test_a_listing_tells_when_objects_were_written(store: Store):
    store.put("a", b"")
    store.put("b", b"")
    first, second = store.list("")

    assert 0 < first.modified_ms <= second.modified_ms


def test_a_prefix_is_of_characters_not_of_folders(store: Store):
    for path in ("job/chk-1/_metadata", "job/chk-10/_metadata", "job/chk-2/_metadata", "jobs/x"):
        store.put(path, b"")

    assert paths(store, "job/chk-1") == ["job/chk-1/_metadata", "job/chk-10/_metadata"]
    assert paths(store, "job/chk-1/") == ["job/chk-1/_metadata"]
    assert paths(store, "job/chk-1/_meta") == ["job/chk-1/_metadata"]
    assert paths(store, "job") == [
        "job/chk-1/_metadata",
        "job/chk-10/_metadata",
        "job/chk-2/_metadata",
        "jobs/x",
    ]
    assert paths(store, "nothing/here") == []
    assert paths(store, "job/chk-1/_metadata/") == []


def test_a_listing_is_sorted_by_the_whole_path(store: Store):
    names = ["a-b/x", "a/b/x", "a0", "a/b-c", "B", "é", "a.b", "ba"]
    for name in names:
        store.put(name, b"")

    assert paths(store) == sorted(names)


def test_nothing_was_ever_written(store: Store):
    assert paths(store) == []
    assert store.get("a") is None
    assert store.length("a") is None
    store.delete(["a/b", "c"])


def test_more_objects_than_fit_a_page_are_all_listed_and_deleted(store: Store):
    names = [f"many/{i:04}" for i in range(1005)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: store.put(name, b""), names))
    assert paths(store, "many/") == names

    store.delete(name for name in names)
    assert paths(store, "many/") == []


def test_deleting_what_is_not_there_is_no_error(store: Store):
    store.put("job/a", b"")
    store.put("job/b", b"")

    store.delete([])
    store.delete(["job/a", "job/a", "job", "elsewhere/x"])
    store.delete(["job/a", "job/a/below"])

    assert paths(store) == ["job/b"]


def test_writers_are_not_disturbed_by_deletes_that_empty_their_folder(store: Store):
    def work(i: int) -> None:
        for n in range(15):
            store.put(f"job/shared/{i}-{n}", b"content")
            assert store.get(f"job/shared/{i}-{n}") == b"content"
            assert store.put_if_absent(f"job/other/{i}-{n}", b"") is True
            store.delete([f"job/shared/{i}-{n}", f"job/other/{i}-{n}"])

    all_at_once(work, 6)
    assert paths(store) == []


@pytest.mark.parametrize("length", [0, 1, MiB - 1, MiB + 1, 8 * MiB, 8 * MiB + 1, 20 * MiB + 7])
def test_a_file_goes_up_and_comes_down_with_its_checksum(store: Store, tmp_path: Path, length: int):
    content = random.Random(length).randbytes(length)
    (tmp_path / "up").write_bytes(content)

    up = store.upload("job/shared/1-1-x", tmp_path / "up")
    assert (up.length, up.crc32) == (length, zlib.crc32(content))
    assert store.length("job/shared/1-1-x") == length

    down = store.download("job/shared/1-1-x", tmp_path / "down")
    assert down == up
    assert (tmp_path / "down").read_bytes() == content
    assert store.get("job/shared/1-1-x") == content


def test_an_upload_is_a_copy_of_its_own(store: Store, tmp_path: Path):
    file = tmp_path / "000012.sst"
    file.write_bytes(b"at the barrier")
    store.upload("job/shared/x", file)
    with file.open("r+b") as f:
        f.write(b"AFTERWARDS!!!!")
    store.download("job/shared/x", tmp_path / "fetched")
    with (tmp_path / "fetched").open("r+b") as f:
        f.write(b"in my own copy")

    assert store.get("job/shared/x") == b"at the barrier"


def test_a_file_that_is_gone_cannot_be_uploaded(store: Store, tmp_path: Path):
    with pytest.raises(PenstockError, match="No such file") as e:
        store.upload("job/x", tmp_path / "gone")

    assert str(tmp_path / "gone") in str(e.value.where)
    assert paths(store) == []


def test_a_full_disk_under_a_download_is_rejected(store: Store, tmp_path: Path):
    store.put("job/x", b"x" * 100)
    file = tmp_path / "file"
    file.symlink_to("/dev/full")

    with pytest.raises(Rejected, match="disk is full") as e:
        store.download("job/x", file)
    assert e.value.fix
    assert not file.is_symlink(), "the torn file stays"


@pytest.mark.parametrize("name", NASTY_NAMES)
def test_a_name_may_have_any_printable_character(store: Store, name: str):
    store.put(name, b"here")

    assert store.get(name) == b"here"
    assert store.length(name) == 4
    assert paths(store, name[:-1]) == [name]
    assert store.put_if_absent(name, b"") is False
    store.delete([name])
    assert paths(store) == []


@pytest.mark.parametrize(
    "path", ["", "/a", "a/", "a//b", "../a", "a/../../b", "./a", "a/.", "..", "/etc/passwd"]
)
def test_a_path_that_leads_out_of_the_root_is_rejected(store: Store, tmp_path: Path, path: str):
    (tmp_path / "file").write_bytes(b"")
    calls: Iterable[Callable[[], object]] = (
        lambda: store.put(path, b""),
        lambda: store.put_if_absent(path, b""),
        lambda: store.get(path),
        lambda: store.length(path),
        lambda: store.delete([path]),
        lambda: store.upload(path, tmp_path / "file"),
        lambda: store.download(path, tmp_path / "fetched"),
    )
    for call in calls:
        with pytest.raises(Rejected, match="not an object's path"):
            call()


def test_a_reader_never_sees_half_an_object_while_it_is_replaced(
    store: Store, request: pytest.FixtureRequest
):
    if not isinstance(store, MemoryStore | LocalStore):
        request.getfixturevalue("real_s3")
    whole = [bytes([letter]) * 300_000 for letter in b"abcd"]
    store.put("job/x", whole[0])
    seen = set()
    with beside(lambda n: store.put("job/x", whole[n % 4])):
        deadline = time.monotonic() + 30
        for reads in itertools.count(1):
            content = store.get("job/x")
            assert content in whole
            seen.add(content)
            assert [(f.path, f.length) for f in store.list("")] == [("job/x", 300_000)]
            if reads >= 40 and len(seen) > 2:
                break
            assert time.monotonic() < deadline, "the writer did nothing"


def test_a_listing_beside_writers_never_misses_what_stood_before(store: Store):
    def write(n: int) -> None:
        store.put(f"job/new/{n % 5}", b"")
        store.delete([f"job/new/{n % 5}"])

    before = [f"job/old/{n:02}" for n in range(20)]
    for path in before:
        store.put(path, b"")
    with beside(write):
        for _ in range(20):
            assert [p for p in paths(store, "job/") if p.startswith("job/old/")] == before


def test_a_writable_store_passes_the_probe_and_keeps_nothing_of_it(store: Store):
    check_writable(store)

    assert paths(store) == []


def test_a_store_that_replaces_in_spite_of_if_absent_is_rejected_by_the_probe():
    class Forgetful(MemoryStore):
        def put_if_absent(self, path: str, data: bytes) -> bool:
            self.put(path, data)
            return True

    store = Forgetful(lambda: 0)
    with pytest.raises(Rejected, match="only if absent"):
        check_writable(store)
    assert paths(store) == []


def test_the_url_opens_the_same_store_again(store: Store):
    if isinstance(store, MemoryStore):
        pytest.skip("memory is gone with its process")
    store.put("job/a", b"there")

    assert not store.url.endswith("/")
    assert open_store(store.url).get("job/a") == b"there"
    assert open_store(store.url + "/job/").get("a") == b"there"


def test_uploads_of_several_threads_do_not_mix(store: Store, tmp_path: Path):
    contents = [os.urandom(200_000 + i) for i in range(8)]
    for i, content in enumerate(contents):
        (tmp_path / str(i)).write_bytes(content)

    stored = all_at_once(lambda i: store.upload(f"job/shared/{i}", tmp_path / str(i)), 8)

    for i, content in enumerate(contents):
        assert stored[i].crc32 == zlib.crc32(content)
        assert store.get(f"job/shared/{i}") == content
