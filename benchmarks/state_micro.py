"""Costs of the keyed backends and the value serializers, one thread, nanoseconds a row.

PYTHONPATH=worker python benchmarks/state_micro.py [rows]
"""

import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from penstock.core.keygroups import KeyGroupRange, key_group
from penstock.core.keys import encode_key
from penstock.core.rows import list_index, row_prefix
from penstock.state import canonical
from penstock.state.backend import LocalPart
from penstock.state.heap import open_heap
from penstock.state.rocks import open_rocks
from penstock.state.serializers import serializer_for

WHOLE = KeyGroupRange(0, 128)
BATCH = 500


@dataclass(frozen=True)
class Request:
    host: str
    status: int
    seconds: float


def row_of(key):
    encoded = encode_key(key)
    return row_prefix(key_group(encoded, max_parallelism=128), encoded, width=1)


def timed(name, rows, work):
    start = time.perf_counter()
    work()
    spent = time.perf_counter() - start
    print(f"{name:32} {spent * 1e9 / rows:9.0f} ns/row {rows / spent / 1e6:7.2f} M/s")


def batches(items, size=BATCH):
    return [items[at : at + size] for at in range(0, len(items), size)]


def backend(kind, factory, folder, count):
    def opened(name):
        path = folder / f"{kind}-{name}"
        path.mkdir()
        return factory(path, groups=WHOLE, max_parallelism=128, options={})

    rows = [row_of(i) for i in range(count)]
    random.Random(1).shuffle(rows)
    changes = batches([(row, b"\x00\xcd\x12\x34") for row in rows])
    reads = batches(rows, 2000)
    store = opened("first")
    store.open_table("counts")
    timed(f"{kind} write", count, lambda: [store.write("counts", part) for part in changes])
    timed(f"{kind} overwrite", count, lambda: [store.write("counts", part) for part in changes])
    timed(f"{kind} get_many", count, lambda: [store.get_many("counts", part) for part in reads])
    copies = []
    timed(f"{kind} copy_out", count, lambda: copies.append(store.copy_out(folder / f"{kind}-copy")))
    timed(
        f"{kind} get_many, from files",
        count,
        lambda: [store.get_many("counts", part) for part in reads],
    )
    groups = [bytes([group]) for group in WHOLE]
    timed(f"{kind} scan of groups", count, lambda: [list(store.scan("counts", g)) for g in groups])
    (copy,) = copies
    part = LocalPart(copy.format, WHOLE, WHOLE, copy.path, None, copy.offsets)
    again = opened("second")
    timed(f"{kind} restore its own", count, lambda: again.restore([part]))
    if kind == "rocks":
        streams = []
        timed(
            "rocks to canonical",
            count,
            lambda: streams.append(
                canonical.from_rocks(copy.path, WHOLE, folder / "stream", max_parallelism=128)
            ),
        )
        stream = LocalPart(
            streams[0].format, WHOLE, WHOLE, streams[0].path, None, streams[0].offsets
        )
        third = opened("third")
        timed("rocks restore canonical", count, lambda: third.restore([stream]))
        third.close()
    lists = [row_of(i) for i in range(count // 10)]
    store.open_table("lists")
    for row in lists:
        store.write("lists", [(row + list_index(j), b"\x00\x05") for j in range(10)])
    list(store.scan("lists", lists[0]))
    timed(
        f"{kind} scan of 10-row keys",
        len(lists),
        lambda: [list(store.scan("lists", row)) for row in lists],
    )
    timed(
        f"{kind} last of 10-row keys",
        len(lists),
        lambda: [store.last("lists", row) for row in lists],
    )
    store.close()
    again.close()


def serializers(count):
    samples = {
        int: list(range(count)),
        str: [f"host-{i}" for i in range(count)],
        list[float]: [[1.5, float(i)] for i in range(count)],
        Request: [Request("a.example", i, 0.5) for i in range(count)],
    }
    for type_, values in samples.items():
        serializer = serializer_for(type_)
        name = (
            getattr(type_, "__name__", str(type_)) if type_ in (int, str, Request) else str(type_)
        )
        encode, decode, accepts = serializer.encode, serializer.decode, serializer.accepts
        stored = [encode(value) for value in values]
        timed(f"{name} encode", count, lambda e=encode, v=values: [e(x) for x in v])
        timed(f"{name} decode", count, lambda d=decode, s=stored: [d(x) for x in s])
        timed(f"{name} accepts", count, lambda a=accepts, v=values: [a(x) for x in v])


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as folder:
        backend("heap", open_heap, Path(folder), count)
        backend("rocks", open_rocks, Path(folder), count)
    serializers(count)


if __name__ == "__main__":
    main()
