"""Where one child's time goes in the keyed count: shares of what it does, by sampling.

    PYTHONPATH=worker python benchmarks/hot_path.py [--records 3000000] [--keys 10000 1000000]

A signal every millisecond of CPU time notes the function that runs. Unlike a tracing profiler this
does not make small functions look dear. Time in C counts for the Python function that called it.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from inside import Inside, as_in_a_child, manifest

_SAMPLE_S = 0.001

_GROUPS = (
    ("author's code", "jobs/keyed_count.py", ""),
    ("key_by", "runtime/exchange.py", ""),
    ("loop", "runtime/generated.py", ""),
    ("loop", "runtime/stages.py", ""),
    ("RocksDB, heap", "state/rocks.py", ""),
    ("RocksDB, heap", "state/heap.py", ""),
    ("encode", "state/keyed.py", "_write"),
    ("encode", "state/cells.py", "drain"),
    ("encode", "state/serializers.py", "encode"),
    ("bind, load, trim", "state/keyed.py", ""),
    ("bind, load, trim", "state/cells.py", ""),
    ("bind, load, trim", "state/serializers.py", ""),
    ("bind, load, trim", "core/keys.py", ""),
)
"""Group, end of the file's name, part of the function's name; the first that fits counts."""


def group_of(file: str, function: str) -> str:
    """What a function's time counts for."""
    for group, ending, part in _GROUPS:
        if file.endswith(ending) and part in function:
            return group
    return "rest"


@contextmanager
def sampled(into: Counter[tuple[str, str]]) -> Iterator[None]:
    """Count the running function at each tick of this process's CPU time."""

    def note(_: int, frame: FrameType | None) -> None:
        if frame is not None:
            into[frame.f_code.co_filename, frame.f_code.co_qualname] += 1

    before = signal.signal(signal.SIGPROF, note)
    signal.setitimer(signal.ITIMER_PROF, _SAMPLE_S, _SAMPLE_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def measure(
    *, records: int, keys: int, backend: str, memory: str
) -> tuple[dict[str, Any], Counter[str]]:
    """CPU time of one run, then the functions of another."""
    job = manifest(records=records, keys=keys, backend=backend, memory=memory)
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name:
        folder = Path(name)
        plain = Inside(job, folder)
        with as_in_a_child():
            begun = time.thread_time()
            plain.run()
            spent = time.thread_time() - begun
        plain.close()
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name:
        watched = Inside(job, Path(name))
        functions: Counter[tuple[str, str]] = Counter()
        with as_in_a_child(), sampled(functions):
            watched.run()
        watched.close()
    shares: Counter[str] = Counter()
    named: Counter[str] = Counter()
    for (file, function), count in functions.items():
        shares[group_of(file, function)] += count
        named[f"{Path(file).name}:{function}"] += count
    total = shares.total() or 1
    figures = {
        "backend": backend,
        "keys": keys,
        "records": records,
        "cpu_seconds": round(spent, 3),
        "records_per_cpu_second": round(records / spent),
        "shares": {group: round(count / total, 3) for group, count in shares.most_common()},
    }
    return figures, named


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--records", type=int, default=3_000_000)
    parser.add_argument("--keys", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--backend", choices=["RocksDB", "FileSystem"], default="RocksDB")
    parser.add_argument("--memory", default="1Gi", help="state.rocksdb.memory; less evicts more")
    parser.add_argument("--functions", type=int, default=0, help="print so many functions, too")
    parser.add_argument("--json", action="store_true", help="one line of JSON for each run")
    given = parser.parse_args()
    for keys in given.keys:
        figures, named = measure(
            records=given.records, keys=keys, backend=given.backend, memory=given.memory
        )
        if given.json:
            print(json.dumps(figures), flush=True)
            continue
        rate = figures["records_per_cpu_second"]
        print(f"\n{given.backend}, {keys:,} keys: {rate:,} records per CPU second")
        for group, share in figures["shares"].items():
            print(f"  {group:18} {share:6.1%}")
        total = named.total() or 1
        for function, count in named.most_common(given.functions):
            print(f"    {function:50} {count / total:6.1%}")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
