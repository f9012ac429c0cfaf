"""How fast Penstock does the keyed count, as JSON lines: real processes, as `penstock run` starts them.

    PYTHONPATH=worker python benchmarks/keyed_count.py --keys 10000 --backend RocksDB

The rate is the marginal one of two sizes, so that start-up does not count; only ratios of runs made
side by side mean something. After each run the final checkpoint is read without the job: the counts
in it must add up to the number of records, and the keys must be all keys.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from jobs.keyed_count import spread
from runs import TooClose, end_tidily, marginal

from penstock.runtime.local import EndedAs, LocalRun, LocalRunConfig, Outcome
from penstock.runtime.logs import configure_logging
from penstock.snapshots import Snapshot
from penstock.spec.streamjob import StreamJob

JOB = Path(__file__).parent / "jobs" / "keyed_count.py"
BACKENDS = ("RocksDB", "FileSystem")
_CHUNK = 1_000_000


@dataclass(frozen=True, slots=True)
class KeyedCount:
    """One setting of the benchmark. `checkpoint_ms` 0: none but the last."""

    records: int
    keys: int = 10_000
    backend: str = "RocksDB"
    parallelism: int = 1
    checkpoint_ms: int = 10_000
    memory: str = "1Gi"
    incremental: bool = True

    def manifest(self) -> StreamJob:
        """The StreamJob of it."""
        return StreamJob.model_validate(
            {
                "apiVersion": "penstock.dev/v1alpha1",
                "kind": "StreamJob",
                "metadata": {"name": "keyed-count"},
                "spec": {
                    "entrypoint": "keyed_count:job",
                    "parameters": {"records": self.records, "keys": self.keys},
                    "parallelism": self.parallelism,
                    "state": {
                        "backend": self.backend,
                        "rocksdb": {"memory": self.memory, "incremental": self.incremental},
                    },
                    "checkpoints": {"interval": f"{self.checkpoint_ms}ms"},
                },
            }
        )


def run(setting: KeyedCount) -> float:
    """Run it once in a new folder, and check what came out; how many seconds the run took.

    Ends the program when the job fails, or counted wrongly.
    """
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name:
        folder = Path(name)
        shutil.copy(JOB, folder)
        with (folder / "log").open("w+b") as log:
            local = LocalRun(
                LocalRunConfig(setting.manifest(), folder, "keyed_count", rest_port=0, stderr=log)
            )
            begun = time.perf_counter()
            outcome = asyncio.run(local.run())
            seconds = time.perf_counter() - begun
            if outcome.ended is not EndedAs.FINISHED or outcome.status.restarts:
                log.seek(0)
                sys.exit(f"the job did not run through: {outcome}\n{log.read()[-4000:].decode()}")
        check(setting, outcome)
    return seconds


def check(setting: KeyedCount, outcome: Outcome) -> None:
    """Compare the final checkpoint with what must be in it."""
    assert outcome.goes_on_from is not None, "a finished job has a snapshot"
    snapshot = Snapshot.open(outcome.goes_on_from)
    keys = total = 0
    decode = msgspec.msgpack.Decoder(int).decode
    for _, entry in snapshot.entries("count", {"count"}):
        keys += 1
        total += decode(entry.rows[0][1])
    if (total, keys) != (setting.records, wanted := keys_of(setting.records, setting.keys)):
        sys.exit(
            f"wrong result of {setting}: {total:,} records under {keys:,} keys, "
            f"not {setting.records:,} under {wanted:,}"
        )


@cache
def keys_of(records: int, keys: int) -> int:
    """How many of the keys so many records reach."""
    found: set[int] = set()
    key_and_one = spread(keys)
    for start in range(0, records, _CHUNK):
        found.update(key for key, _ in map(key_and_one, range(start, min(start + _CHUNK, records))))
        if len(found) == keys:
            break
    return len(found)


def measure(setting: KeyedCount, records: Sequence[int]) -> dict[str, Any]:
    """The marginal rate of two sizes.

    Raises:
        TooClose: the sizes are too small.
    """
    return {
        "engine": "penstock",
        "backend": setting.backend,
        "keys": setting.keys,
        "parallelism": setting.parallelism,
        "checkpoint_ms": setting.checkpoint_ms,
        **marginal(lambda count: run(replace(setting, records=count)), records),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--records", type=int, nargs=2, default=[2_000_000, 6_000_000])
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--backend", choices=BACKENDS, default="RocksDB")
    parser.add_argument("--parallelism", type=int, default=1)
    parser.add_argument("--checkpoint-ms", type=int, default=10_000, help="0: none but the last")
    parser.add_argument("--memory", default="1Gi", help="state.rocksdb.memory")
    parser.add_argument("--rounds", type=int, default=1, help="one line of JSON for each")
    given = parser.parse_args()
    setting = KeyedCount(
        records=0,
        keys=given.keys,
        backend=given.backend,
        parallelism=given.parallelism,
        checkpoint_ms=given.checkpoint_ms,
        memory=given.memory,
    )
    end_tidily()
    configure_logging("plain")
    for _ in range(given.rounds):
        try:
            print(json.dumps(measure(setting, given.records)), flush=True)
        except TooClose as e:
            sys.exit(f"{e}; give larger --records")


if __name__ == "__main__":
    main()
