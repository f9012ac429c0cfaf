"""StreamJob as the API server has it: read with the manifest's own model, plus what a cluster asks for.

The API server checks most of it before an object is stored; the same is checked here again, because
an object may be older than its rules. What is wrong is told as sentences, each beginning with a field.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from penstock.spec.streamjob import StreamJob, StreamJobSpec
from penstock.spec.wording import mistakes_of, shown
from penstock.spec.yaml_lines import Document
from penstock_operator.resources.names import ResourceKind

STREAMJOB = ResourceKind(
    kind="StreamJob",
    plural="streamjobs",
    singular="streamjob",
    short_names=("sj",),
    # Not `all`: `kubectl delete all --all` would delete jobs, with policy Delete their state, too.
    categories=("penstock",),
)

NOT_SHARED = "is not shared by pods; on a cluster write s3://bucket/folder"


@dataclass(frozen=True, slots=True)
class ReadSpec:
    """The spec, None when it has `mistakes`: one sentence each."""

    spec: StreamJobSpec | None
    mistakes: tuple[str, ...] = ()


def read_spec(body: Mapping[str, Any]) -> ReadSpec:
    """The spec of an object as the API server gives it."""
    manifest = {name: value for name, value in body.items() if name != "status"}
    try:
        spec = StreamJob.model_validate(manifest).spec
    except ValidationError as e:
        found = mistakes_of(e, StreamJob, Document())
        return ReadSpec(None, tuple(f"{m.field}: {m.message}" for m in found))
    mistakes = tuple(_against_a_cluster(spec))
    return ReadSpec(None if mistakes else spec, mistakes)


def _against_a_cluster(spec: StreamJobSpec) -> Iterator[str]:
    """What runs on a laptop and not in pods."""
    for part, storage in (
        ("checkpoints", spec.checkpoints.storage),
        ("savepoints", spec.savepoints.storage),
    ):
        if storage is not None and not storage.startswith("s3://"):
            yield f"spec.{part}.storage: {shown(storage)} {NOT_SHARED}"
