"""What checkpoints cost: throughput, the longest stall, bytes uploaded, and restoring.

    PYTHONPATH=worker python benchmarks/checkpoint_cost.py [--records 6000000] [--mib 200]

Throughput and stalls are those of a child's mailbox in this process. Uploads and restores are the
supervisor's own, of one RocksDB backend, to and from a folder; `cp` of the same files stands beside.
Prints JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from inside import ATTEMPT, Inside, as_in_a_child, manifest

from penstock.core.handles import KeyedFormat, KeyedHandle, SubtaskSnapshot
from penstock.core.ids import CheckpointId, JobId, OperatorId, SubtaskId
from penstock.core.keygroups import KeyGroupRange, key_group
from penstock.core.keys import encode_key
from penstock.core.rows import row_prefix
from penstock.core.snapshots import KeyedSource, OperatorPart
from penstock.network import frames
from penstock.runtime.job_storage import JobStorage
from penstock.runtime.transfers import Upload, Uploader, fetch
from penstock.state.backend import LocalPart
from penstock.state.rocks import RocksBackend, open_rocks
from penstock.storage.location import open_store

GROUPS = KeyGroupRange(0, 128)
OPERATOR = OperatorId("state")
JOB = JobId("checkpoint-cost")
TABLE = "value"
VALUE_BYTES = 200
_ROWS_AT_ONCE = 500


# ── throughput and stalls ────────────────────────────────────────────────────────────────────────


def driven(records: int, keys: int, every_s: float | None) -> dict[str, Any]:
    """One run, with a checkpoint that begins every so often; none for None.

    `worst_ms` are the longest turns of the mailbox while a checkpoint was written, and otherwise.
    """
    worst_s = {True: 0.0, False: 0.0}
    checkpoints = dirty_most = 0
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name:
        inside = Inside(manifest(records=records, keys=keys, backend="RocksDB"), Path(name))
        with as_in_a_child():
            begun_s = time.perf_counter()
            begun_cpu_s = time.process_time()
            next_s = begun_s + (every_s or float("inf"))
            for took_s in inside.turns():
                is_writing = inside.is_snapshotting
                worst_s[is_writing] = max(worst_s[is_writing], took_s)
                if time.perf_counter() >= next_s and not is_writing:
                    checkpoints += 1
                    dirty_most = max(dirty_most, inside.changed_keys)
                    inside.trigger(checkpoints)
                    next_s = time.perf_counter() + (every_s or 0.0)
            seconds = time.perf_counter() - begun_s
            cpu_s = time.process_time() - begun_cpu_s
        inside.close()
    return {
        "records_per_second": round(records / seconds),
        "records_per_cpu_second": round(records / cpu_s),
        "checkpoints": checkpoints,
        "changed_keys_most": dirty_most,
        "worst_ms_writing": round(worst_s[True] * 1000, 1),
        "worst_ms_otherwise": round(worst_s[False] * 1000, 1),
    }


def throughput(records: int, keys: int, every_s: float) -> dict[str, Any]:
    """The same work without and with checkpoints."""
    without, with_them = driven(records, keys, None), driven(records, keys, every_s)
    ratio = with_them["records_per_second"] / without["records_per_second"]
    cpu_ratio = with_them["records_per_cpu_second"] / without["records_per_cpu_second"]
    return {
        "keys": keys,
        "interval_s": every_s,
        "without": without,
        "with": with_them,
        "throughput_ratio": round(ratio, 3),
        "cpu_ratio": round(cpu_ratio, 3),
    }


# ── uploads and restores ─────────────────────────────────────────────────────────────────────────


class Uploads:
    """One backend, its checkpoints and where they go."""

    def __init__(self, folder: Path, *, is_incremental: bool) -> None:
        self._folder = folder
        store = open_store(str(folder / "store"))
        self.storage = JobStorage(JOB, store, store, folder)
        self._uploader = Uploader(
            self.storage,
            ATTEMPT,
            max_parallelism=len(GROUPS),
            is_incremental=is_incremental,
            keeps_in_manifest=False,
        )
        self._count = 0

    def checkpoint(self, backend: RocksBackend) -> tuple[KeyedHandle, Path, int]:
        """Copy out and upload; the handle, the local copy, the bytes uploaded."""
        self._count += 1
        n = CheckpointId(self._count)
        copy = self._folder / f"chk-{n}"
        copied = backend.copy_out(copy)
        handle = KeyedHandle(format=copied.format, groups=GROUPS, offsets=copied.offsets)
        snapshotted = frames.Snapshotted(
            attempt=ATTEMPT,
            checkpoint=n,
            subtask=SubtaskId(OPERATOR, 0),
            parts={OPERATOR: OperatorPart(SubtaskSnapshot(handle))},
            copies={OPERATOR: str(copy)},
        )
        base = CheckpointId(n - 1) if n > 1 else None
        upload = Upload(snapshotted, frames.Trigger(ATTEMPT, n, base))
        acked = self._uploader.run(upload)
        done = acked.parts[OPERATOR].snapshot.keyed
        assert done is not None, acked
        return done, copy, acked.bytes_new


def rows(keys: Iterable[int], version: int) -> Iterator[tuple[bytes, bytes]]:
    """Rows of those keys, with values that do not compress."""
    for key in keys:
        encoded = encode_key(key)
        group = key_group(encoded, max_parallelism=len(GROUPS))
        value = hashlib.shake_128(f"{key} {version}".encode()).digest(VALUE_BYTES)
        yield row_prefix(group, encoded, width=1), value


def write(backend: RocksBackend, changes: Iterator[tuple[bytes, bytes]]) -> None:
    """Write all rows, in the batches that a child writes."""
    while some := list(islice(changes, _ROWS_AT_ONCE)):
        backend.write(TABLE, some)


def opened(folder: Path) -> RocksBackend:
    """An empty backend."""
    return open_rocks(
        folder, groups=GROUPS, max_parallelism=len(GROUPS), options={"memory_bytes": 128 << 20}
    )


def uploads(mib: int, *, is_incremental: bool, checkpoints: int) -> dict[str, Any]:
    """Bytes of a first checkpoint, and of later ones after 1 % of the keys changed each time.

    Compaction rewrites files, so the share over all later ones counts, not that of one.
    """
    keys = (mib << 20) // VALUE_BYTES
    chance = random.Random(1)
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name:
        folder = Path(name)
        backend = opened(folder / "state")
        backend.open_table(TABLE)
        write(backend, rows(range(keys), 0))
        sent = Uploads(folder, is_incremental=is_incremental)
        first = sent.checkpoint(backend)[2]
        later = []
        for version in range(1, checkpoints + 1):
            changed = (chance.randrange(keys) for _ in range(keys // 100))
            write(backend, rows(changed, version))
            later.append(sent.checkpoint(backend)[2])
        backend.close()
    return {
        "is_incremental": is_incremental,
        "first_bytes": first,
        "later_bytes": later,
        "later_share": round(sum(later) / len(later) / first, 4),
    }


def restores(mib: int) -> dict[str, Any]:
    """Seconds until state of that size can be read again: from the local copy, from the store."""
    keys = (mib << 20) // VALUE_BYTES
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name:
        folder = Path(name)
        backend = opened(folder / "state")
        backend.open_table(TABLE)
        write(backend, rows(range(keys), 0))
        sent = Uploads(folder, is_incremental=True)
        handle, copy, size = sent.checkpoint(backend)
        backend.close()
        source = KeyedSource(handle, GROUPS, str(JOB))
        row, value = next(rows([keys - 1], 0))

        def restored(path: Path, into: str) -> None:
            again = opened(folder / into)
            again.restore([LocalPart(KeyedFormat.ROCKSDB, GROUPS, GROUPS, path)])
            assert again.get_many(TABLE, [row]) == [value]
            again.close()

        def from_store() -> None:
            [fetched] = fetch(sent.storage, [(source, folder / "fetched")])
            restored(Path(fetched.path), "from-store")

        def cp() -> None:
            subprocess.run(["cp", "-r", str(copy), str(folder / "cp")], check=True)

        return {
            "state_bytes": size,
            "seconds": {
                "from_local_copy": seconds_of(lambda: restored(copy, "from-copy")),
                "from_store": seconds_of(from_store),
                "cp": seconds_of(cp),
            },
        }


def seconds_of(work: Callable[[], None]) -> float:
    """How long it takes."""
    begun = time.perf_counter()
    work()
    return round(time.perf_counter() - begun, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--records", type=int, default=6_000_000)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--interval-s", type=float, default=10.0, help="between checkpoints")
    parser.add_argument("--mib", type=int, default=200, help="state to upload and restore")
    parser.add_argument("--checkpoints", type=int, default=20, help="incremental ones")
    given = parser.parse_args()
    found = {
        "throughput": throughput(given.records, given.keys, given.interval_s),
        "incremental": uploads(given.mib, is_incremental=True, checkpoints=given.checkpoints),
        "full": uploads(given.mib, is_incremental=False, checkpoints=1),
        "restore": restores(given.mib),
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
