"""The job of the tests on a cluster: records with a key and a number within the key, counted by key.

What comes out says for each record how many of its key had come, itself included, and which version
of the job wrote it. It stands in an image and is given as a script.
"""

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
    """`fails_after` so many records of a subtask it raises, in every attempt anew; below 0: never."""

    seen = penstock.ValueState(int, default=0)

    def __init__(self, version, fails_after):
        self.version = version
        self.left = fails_after

    def process(self, record, ctx):
        if self.left == 0:
            raise RuntimeError(f"version {self.version} is no good")
        self.left -= 1
        self.seen.value += 1
        yield [record[0], record[1], self.seen.value, self.version]


def job(
    env,
    *,
    output: str,
    per_second: float = 500,
    count: int = -1,
    version: str = "1",
    fails_after: int = -1,
) -> None:
    records = env.source(
        sources.Generator(make, count=None if count < 0 else count, per_second=per_second),
        uid="records",
    )
    checked = records.key_by(key_of).process(Check(version, fails_after), uid="check")
    checked.sink(sinks.Files(output, formats.Json()), uid="out")
