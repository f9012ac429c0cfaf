"""A manifest together with its author's function and arguments, checked in one pass.

This is what `penstock run` begins with: fields, entrypoint and parameters are looked at before the
first mistake is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.core.errors import Rejected
from penstock.spec.entrypoint import Job, load_job, load_script
from penstock.spec.loading import Draft
from penstock.spec.mistakes import Mistake
from penstock.spec.parameters import Arguments, ParameterMistake, check_parameters
from penstock.spec.streamjob import StreamJob, is_entrypoint
from penstock.spec.yaml_lines import field_text


@dataclass(frozen=True, slots=True)
class BoundJob:
    """Everything to build the graph from: `function(env, **arguments)`, in the folder `folder`.

    The manifest's parameters include those of the command line, so that another process which is
    given `manifest.document()` runs the same job.
    """

    manifest: StreamJob
    folder: Path
    function: Job
    arguments: dict[str, Any]


def bind(draft: Draft, overrides: Mapping[str, str] | None = None) -> BoundJob:
    """The job of a draft, its function imported and its parameters checked.

    `overrides` are the `-p NAME=VALUE` of the command line. Raises InvalidManifest with all mistakes
    in fields, entrypoint and parameters.
    """
    function = _function(draft)
    arguments = Arguments()
    if function is not None:
        arguments = _arguments(draft, function, overrides or {})
    manifest = draft.complete()
    assert function is not None, "a manifest without mistakes has an entrypoint or a script"
    if arguments.written:
        spec = manifest.spec.model_copy(update={"parameters": arguments.written})
        manifest = manifest.model_copy(update={"spec": spec})
    return BoundJob(manifest, draft.folder, function, arguments.values)


def _function(draft: Draft) -> Job | None:
    """The author's function; None when the fields that name it are wrong, which is known already."""
    entrypoint, script = draft.written("spec", "entrypoint"), draft.written("spec", "script")
    if draft.is_wrong("spec", "entrypoint") or draft.is_wrong("spec", "script"):
        return None
    try:
        if isinstance(entrypoint, str) and is_entrypoint(entrypoint):
            return load_job(entrypoint, draft.folder)
        if isinstance(script, str):
            return load_script(script, draft.folder)
    except Rejected as e:
        draft.mistakes.append(_at_the_code(draft, e))
    return None


def _at_the_code(draft: Draft, error: Rejected) -> Mistake:
    name = "script" if draft.written("spec", "entrypoint") is None else "entrypoint"
    hint = "\n".join(part for part in (error.where, error.fix) if part)
    line = draft.line_of("spec", name)
    return Mistake(line, f"spec.{name}", error.what, hint or None)


def _arguments(draft: Draft, function: Job, overrides: Mapping[str, str]) -> Arguments:
    written = draft.written("spec", "parameters")
    try:
        found = check_parameters(function, written if isinstance(written, dict) else {}, overrides)
    except Rejected as e:
        draft.mistakes.append(_at_the_code(draft, e))
        return Arguments()
    draft.mistakes.extend(
        sorted((_at(draft, m, overrides) for m in found.mistakes), key=lambda m: m.line or 0)
    )
    return found


def _at(draft: Draft, mistake: ParameterMistake, overrides: Mapping[str, str]) -> Mistake:
    name = mistake.path[0]
    in_file = bool(draft.document.lines)
    if name in overrides or not in_file:
        field = f"-p {field_text(mistake.path)}"
        return Mistake(None, field, mistake.message, mistake.hint)
    path = ("spec", "parameters", *mistake.path)
    return Mistake(draft.line_of(*path), field_text(path), mistake.message, mistake.hint)
