"""The job a command is about: a manifest, or `module:function` with all defaults."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from penstock.core.errors import Rejected
from penstock.core.keygroups import default_max_parallelism
from penstock.dataflow.stream import Environment
from penstock.runtime import pod
from penstock.runtime.program import built
from penstock.spec.binding import BoundJob, bind
from penstock.spec.loading import MANIFEST_LENGTH_MAX_BYTES, Draft, draft_of, read_manifest
from penstock.spec.streamjob import StreamJob, is_entrypoint


@dataclass(frozen=True, slots=True)
class Job:
    """What was named on the command line, checked. `target` is how the person wrote it."""

    target: str
    bound: BoundJob

    @property
    def manifest(self) -> StreamJob:
        """The manifest, with nothing of the command line but parameters looked at."""
        return self.bound.manifest

    @property
    def name(self) -> str:
        """The job's name."""
        return self.manifest.metadata.name


def load(target: str, parameters: Sequence[str] = ()) -> Job:
    """Read the manifest (or make one of defaults), import the function and check its parameters.

    Raises:
        Rejected: with all mistakes in fields, entrypoint and parameters together.
    """
    with _authors_code():
        return Job(target, bind(draft(target), overrides(parameters)))


def build(job: Job) -> Environment:
    """Call the job's function and give what it built on.

    Raises:
        Rejected: what it raised, with the author's own lines; or its graph cannot run.
    """
    with _authors_code():
        return built(job.bound)


@contextlib.contextmanager
def _authors_code() -> Iterator[None]:
    """What it prints is no result of ours, and where it goes our own relative paths do not follow."""
    try:
        here = Path.cwd()
    except FileNotFoundError as e:
        raise Rejected(
            "the current folder is gone", fix="cd into one that exists, then run it again"
        ) from e
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.chdir(here)


def load_here(parameters: Sequence[str] = ()) -> Job:
    """The job of the pod that this process runs in.

    Raises:
        Rejected: as `load`; or this is no pod.
    """
    manifest, folder = pod.manifest_file(), pod.job_folder()
    if not manifest.exists():
        raise Rejected(
            "no manifest is named",
            where=f"{manifest}, where a pod has it",
            fix="name it, as in streamjob.yaml",
        )
    read = read_manifest(manifest)
    read.folder = folder
    os.chdir(folder)
    with _authors_code():
        return Job(str(manifest), bind(read, overrides(parameters)))


def draft(target: str) -> Draft:
    """The manifest in work. Raises Rejected when there is no such file."""
    path, _, function = target.partition(":")
    if path.endswith(".py"):
        raise Rejected(
            f"{target} is Python, not a manifest",
            fix=f"name module and function: {Path(path).stem}:{function or 'job'}",
        )
    if is_entrypoint(target) and not Path(target).exists():
        return draft_of(target, folder=Path())
    if Path(f"{target}.py").exists() and not Path(target).exists():
        raise Rejected(
            f"{target} is a module, not a manifest", fix=f"name its function, too: {target}:job"
        )
    return read_manifest(Path(target), longest_bytes=MANIFEST_LENGTH_MAX_BYTES)


def overrides(parameters: Sequence[str]) -> dict[str, str]:
    """`NAME=VALUE` pairs; of two with one name the later wins."""
    found = {}
    for text in parameters:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise Rejected(
                f"{text!r} is not a parameter",
                where="-p",
                fix=f"write -p NAME=VALUE, as in -p {name or 'input'}=data.txt",
            )
        found[name] = value
    return found


def max_parallelism(manifest: StreamJob, parallelism: int) -> int:
    """What the manifest sets, else the default for that parallelism."""
    return manifest.spec.max_parallelism or default_max_parallelism(parallelism)
