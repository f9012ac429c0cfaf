"""What the oracle's job has committed and saved, held against what its input says it must be."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import Any

import boto3
from tests.process.support_jobs import BLOCK, SPLITS, record_of

from penstock.dataflow.nodes import SOURCE_POSITION
from penstock.snapshots import Snapshot


@dataclass(frozen=True, slots=True)
class Line:
    """One committed record: the how-manieth of its key it is, by the source and by the state."""

    key: str
    number: int
    count: int
    version: str


@cache
def s3() -> Any:
    """The object store as this process reaches it; a client is slow to make."""
    return boto3.client("s3")


def objects(bucket: str, prefix: str) -> list[dict[str, Any]]:
    """What lies there, by the names' order."""
    pages = s3().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return [item for page in pages for item in page.get("Contents", ())]


def keys(url: str) -> list[str]:
    """Names of the objects below that URL."""
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    return [item["Key"] for item in objects(bucket, prefix)]


def committed(folder: str) -> list[Line]:
    """Everything that readers of the folder (s3://bucket/name) see, in the order of the files' names."""
    bucket, _, name = folder.removeprefix("s3://").partition("/")
    found = objects(bucket, f"{name}/")
    return [line for item in found for line in _lines(bucket, item["Key"], item["ETag"])]


@cache
def _lines(bucket: str, key: str, version: str) -> tuple[Line, ...]:
    """One file; what was read of a version is not read again."""
    body = s3().get_object(Bucket=bucket, Key=key, IfMatch=version)["Body"].read()
    return tuple(Line(*json.loads(line)) for line in body.splitlines())


def assert_exact(lines: list[Line]) -> None:
    """No record of a key is missing below its newest, none is there twice, each was counted once."""
    assert lines, "nothing was committed"
    numbers: dict[str, list[int]] = {}
    for line in lines:
        numbers.setdefault(line.key, []).append(line.number)
    for key, found in numbers.items():
        found.sort()
        if found != list(range(len(found))):
            times = Counter(found)
            missing = sorted(set(range(found[-1] + 1)) - set(found))
            twice = sorted(n for n, count in times.items() if count > 1)
            raise AssertionError(f"key {key}: missing {missing[:20]}, more than once {twice[:20]}")
    wrong = [line for line in lines if line.count != line.number + 1]
    assert not wrong, f"{len(wrong)} records were counted wrongly, as {wrong[:5]}"


def assert_versions(lines: list[Line], *versions: str) -> None:
    """Exactly these versions wrote, in this order within every key."""
    assert {line.version for line in lines} == set(versions)
    places: dict[str, int] = {}
    for line in sorted(lines, key=lambda line: line.number):
        place = versions.index(line.version)
        assert place >= places.get(line.key, 0), f"{line} came after a later version"
        places[line.key] = place


def assert_is_prefix_of(lines: list[Line], path: str) -> None:
    """What is committed is what the snapshot's offsets name, neither less nor more."""
    expected = records_before(path)
    found = Counter((line.key, line.number) for line in lines)
    missing, beyond = expected - found, found - expected
    assert not missing, f"{missing.total()} records are missing, as {list(missing)[:10]}"
    assert not beyond, f"{beyond.total()} records are too many, as {list(beyond)[:10]}"


def assert_state(path: str) -> None:
    """The keyed state of a snapshot is what its input up to its offsets makes of it."""
    expected = Counter(key for key, _ in records_before(path))
    found = dict(Snapshot.open(path).values("check", "seen"))
    wrong = {k: (found.get(k), expected.get(k)) for k in found.keys() ^ expected.keys()}
    wrong |= {k: (found[k], n) for k, n in expected.items() if found.get(k) != n}
    assert not wrong, f"{len(wrong)} keys are wrong (found, expected): {list(wrong.items())[:5]}"


def records_before(path: str) -> Counter[tuple[str, int]]:
    """The records that the source had given when this snapshot was taken."""
    records: Counter[tuple[str, int]] = Counter()
    for subtask in Snapshot.open(path).operator("records").subtasks:
        for item in subtask.lists.get(SOURCE_POSITION, ()):
            end = json.loads(item)["next"]
            split = end // BLOCK % SPLITS
            for begin in range(split * BLOCK, end, SPLITS * BLOCK):
                records.update(map(record_of, range(begin, min(begin + BLOCK, end))))
    return records
