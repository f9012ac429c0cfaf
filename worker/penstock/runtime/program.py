"""The author's program in this process: the manifest, its function called, the graph that it made."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from penstock.core.errors import PenstockError, Rejected
from penstock.core.graph import JobGraph
from penstock.core.handles import SubtaskSnapshot
from penstock.core.manifest import Manifest
from penstock.dataflow.connector import Sink, Source, SourceContext, SourceState
from penstock.dataflow.nodes import SOURCE_KNOWN, SOURCE_POSITION
from penstock.dataflow.stream import Environment
from penstock.runtime.clock import Clock
from penstock.spec.binding import BoundJob, bind
from penstock.spec.loading import read_manifest
from penstock.spec.streamjob import StreamJob
from penstock.spec.tracebacks import author_lines, raised


@dataclass(frozen=True, slots=True)
class Program:
    """What a manifest stands for: the same in every process that loads it."""

    manifest: StreamJob
    folder: Path
    environment: Environment
    graph: JobGraph


def load_program(manifest: Path, folder: Path) -> Program:
    """Read a manifest and call its job; modules and relative paths are the folder's.

    Raises:
        Rejected: mistakes in the manifest, or what `job()` raised, with the author's own lines.
    """
    draft = read_manifest(manifest)
    draft.folder = folder
    bound = bind(draft)
    environment = built(bound)
    return Program(bound.manifest, folder, environment, environment.graph())


def built(bound: BoundJob) -> Environment:
    """Call the job's function and give what it built on; its graph is checked.

    Raises:
        Rejected: what the function raised, with the author's own lines.
    """
    environment = Environment(bound.manifest.metadata.name)
    try:
        bound.function(environment, **bound.arguments)
    except PenstockError:
        raise
    except (Exception, SystemExit) as e:  # sys.exit() in it would end this process without a word
        name = getattr(bound.function, "__name__", "job")
        raise Rejected(
            f"{name}() raised {raised(e)}",
            where="\n".join(author_lines(e, bound.folder)) or None,
            fix="correct it, then run it again",
        ) from e
    environment.graph()
    return environment


def sinks_without_transactions(program: Program) -> tuple[str, ...]:
    """The sinks that write at once: they cannot hold anything back."""
    return tuple(
        str(node.id)
        for node in program.environment.nodes()
        if isinstance(node.runs, Sink) and not node.runs.exactly_once
    )


def has_unread(program: Program, finished: Manifest) -> bool:
    """Whether a source has something to read that a finished run had not: its end is its snapshot.

    Opens every source; each is asked as its only subtask.
    """
    clock = Clock()
    for node in program.environment.nodes():
        if not isinstance(node.runs, Source):
            continue
        reader = node.runs.open(
            SourceContext(
                uid=str(node.id),
                subtask=0,
                parallelism=1,
                now_ms=clock.now_ms,
                folder=program.folder,
                warn=warnings.warn,
            )
        )
        try:
            if snapshot := finished.operators.get(node.id):
                reader.restore(_state_of(snapshot.subtasks))
            if reader.unread():
                return True
        finally:
            reader.close()
    return False


def _state_of(subtasks: Iterable[SubtaskSnapshot]) -> SourceState:
    """All positions of a source; what its subtasks know, each item once."""
    splits: list[bytes] = []
    known: dict[bytes, None] = {}
    for subtask in subtasks:
        splits += subtask.lists.get(SOURCE_POSITION, ())
        known |= dict.fromkeys(subtask.lists.get(SOURCE_KNOWN, ()))
    return SourceState(splits=splits, known=tuple(known))
