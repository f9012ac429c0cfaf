"""Jobs for the tests with real processes, and what each must come to, computed without Penstock."""

JOBS = '''
"""Records with a key and a number within the key; what comes out says how each was counted."""

import os
import time
from pathlib import Path

import penstock
from penstock import formats, sinks, sources

KEYS_A_SPLIT = 16
SPLITS, BLOCK = 128, 1024


def make(index, random):
    """All records of a key are of one split of the generator, so they come in order."""
    block, offset = divmod(index, BLOCK)
    turn, split = divmod(block, SPLITS)
    number, key = divmod(turn * BLOCK + offset, KEYS_A_SPLIT)
    return [f"{split}-{key}", number]


def key_of(record) -> str:
    return record[0]


class Check(penstock.KeyedFunction):
    """Emits each record with how many of its key came so far, itself included, and notes whether
    they came in order."""

    seen = penstock.ValueState(int, default=0)
    late = penstock.ListState(int)

    def process(self, record, ctx):
        if record[1] != self.seen.value:
            self.late.append(record[1])
        self.seen.value += 1
        yield [record[0], record[1], self.seen.value]


def job(env, *, count: int, per_second: float, output: str) -> None:
    records = env.source(
        sources.Generator(make, count=count, per_second=per_second or None), uid="records"
    )
    checked = records.key_by(key_of).process(Check(), uid="check")
    checked.sink(sinks.Files(output, formats.Json()), uid="out")


def poisoned_map(env, *, at: int, output: str) -> None:
    def stumble(record):
        if record == ["0-3", at]:
            raise ValueError("no good")
        return record

    records = env.source(sources.Generator(make, count=400_000, per_second=100_000), uid="records")
    records.map(stumble).key_by(key_of).process(Check(), uid="check").sink(
        sinks.Files(output, formats.Json()), uid="out"
    )


class Stumble(Check):
    """Raises at one record."""

    def __init__(self, at):
        self.at = at

    def process(self, record, ctx):
        if record == ["0-3", self.at]:
            raise ValueError("no good")
        yield from super().process(record, ctx)


def poisoned_process(env, *, at: int, output: str) -> None:
    records = env.source(sources.Generator(make, count=400_000, per_second=100_000), uid="records")
    records.key_by(key_of).process(Stumble(at), uid="check").sink(
        sinks.Files(output, formats.Json()), uid="out"
    )


def poisoned_key(env, *, at: int, output: str) -> None:
    def key_or_raise(record) -> str:
        if record == ["0-3", at]:
            raise ValueError("no good")
        return record[0]

    records = env.source(sources.Generator(make, count=400_000, per_second=100_000), uid="records")
    records.key_by(key_or_raise).process(Check(), uid="check").sink(
        sinks.Files(output, formats.Json()), uid="out"
    )


def never_returns(env, *, at: int, output: str) -> None:
    """One record stops its worker for good; the file makes that happen once only."""

    def wait(record):
        if record == ["0-3", at] and not Path("stuck").exists():
            Path("stuck").write_text(str(os.getpid()))
            while True:
                time.sleep(3600)
        return record

    records = env.source(sources.Generator(make, count=40_000), uid="records")
    records.map(wait).key_by(key_of).process(Check(), uid="check").sink(
        sinks.Files(output, formats.Json()), uid="out"
    )
'''

KEYS_A_SPLIT, SPLITS, BLOCK = 16, 128, 1024


def lines_of(count: int) -> list[str]:
    """The lines that `job` writes of its first `count` records, sorted."""
    lines = []
    for index in range(count):
        key, number = record_of(index)
        lines.append(f'["{key}",{number},{number + 1}]')
    lines.sort()
    return lines


def counts_of(count: int) -> dict[str, int]:
    """The state `seen` after the first `count` records."""
    counts: dict[str, int] = {}
    for index in range(count):
        key, _ = record_of(index)
        counts[key] = counts.get(key, 0) + 1
    return counts


def record_of(index: int) -> tuple[str, int]:
    """Record number `index`: its key, and its number within the key."""
    block, offset = divmod(index, BLOCK)
    turn, split = divmod(block, SPLITS)
    number, key = divmod(turn * BLOCK + offset, KEYS_A_SPLIT)
    return f"{split}-{key}", number
