"""The manifest that a local run really takes: the file's, with the command line's words in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from penstock.cli.job import Job
from penstock.core.errors import Rejected
from penstock.spec.parameters import override_values
from penstock.spec.parts.fields import is_storage
from penstock.spec.streamjob import StreamJob

OF_THE_MANIFEST = "manifest"


def effective(
    job: Job, *, parameters: Mapping[str, str], parallelism: int | None, storage: str | None
) -> tuple[StreamJob, str | None]:
    """The manifest to run, and a sentence when its storage was replaced.

    `storage` is None for what suits a laptop: `./state` in place of `s3://`; `manifest` for what the
    manifest says; else the folder or URL that gets `checkpoints` and `savepoints`.

    Raises:
        Rejected: more workers than key groups, or a storage of another kind.
    """
    document = job.manifest.document()
    spec = document["spec"]
    if parameters:
        values = override_values(job.bound.function, parameters)
        spec["parameters"] = {**spec.get("parameters", {}), **values}
    if parallelism is not None:
        limit = spec.get("maxParallelism")
        if limit is not None and parallelism > limit:
            raise Rejected(
                f"parallelism {parallelism} is above maxParallelism, which is {limit}",
                where=f"--parallelism, and spec.maxParallelism of {job.target}",
                fix=f"give at most {limit}; key groups are fixed for the job's life",
            )
        spec["parallelism"] = parallelism
    said = _with_storage(spec, storage)
    return StreamJob.model_validate(document), said


def _with_storage(spec: dict[str, Any], storage: str | None) -> str | None:
    if storage == OF_THE_MANIFEST:
        return None
    parts = {name: dict(spec.get(name, {})) for name in ("checkpoints", "savepoints")}
    if storage is not None:
        root = _root(storage)
        for name, part in parts.items():
            spec[name] = {**part, "storage": f"{root}/{name}"}
        return None
    remote = [part["storage"] for part in parts.values() if part.get("storage", "")[:5] == "s3://"]
    if not remote:
        return None
    for name, part in parts.items():
        part.pop("storage", None)
        spec[name] = part
    return (
        f"Snapshots go to ./state instead of {remote[0]}; "
        "--storage manifest takes what the manifest says."
    )


def _root(storage: str) -> str:
    """What `/checkpoints` and `/savepoints` are put behind."""
    if not is_storage(storage):
        raise Rejected(
            f"{storage!r} is not a storage",
            where="--storage",
            fix="write manifest, s3://bucket/folder, file:///folder or a folder",
        )
    scheme, separator, rest = storage.partition("://")
    if not separator:
        return str(Path(storage).expanduser().absolute()).rstrip("/")
    return f"{scheme}://{rest.rstrip('/')}"
