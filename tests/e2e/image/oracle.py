"""The job of the tests on a cluster: records with a key and a number within the key, counted by key.

What comes out says for each record how many of its key had come, itself included, and which version
of the job wrote it. It stands in an image and is given as a script.
"""

from pathlib import Path

import penstock
from penstock import formats, sinks, sources

KEYS_A_SPLIT, SPLITS, BLOCK = 16, 128, 1024


def make(index, random):
    """All records of a key are of one split of the generator, so they come in order."""
    block, offset = divmod(index, BLOCK)
    turn, split = divmod(block, SPLITS)
    number, key = divmod(turn * BLOCK + offset, KEYS_A_SPLIT)
    return [f"{split}-{key}", number]


def key_of(record) -> str:
    return record[0]


class Check(penstock.KeyedFunction):
    """Raises as long as there is a file `fails_if`."""

    seen = penstock.ValueState(int, default=0)

    def __init__(self, version, fails_if):
        self.version = version
        self.fuse = Path(fails_if)

    def process(self, record, ctx):
        if self.fuse.exists():
            raise RuntimeError(f"version {self.version} is no good")
        self.seen.value += 1
        yield [record[0], record[1], self.seen.value, self.version]


def job(
    env,
    *,
    output: str,
    per_second: float = 500,
    count: int = -1,
    version: str = "1",
    fails_if: str = "/no-such-file",
) -> None:
    records = env.source(
        sources.Generator(make, count=None if count < 0 else count, per_second=per_second),
        uid="records",
    )
    checked = records.key_by(key_of).process(Check(version, fails_if), uid="check")
    checked.sink(sinks.Files(output, formats.Json()), uid="out")
