"""From a manifest's text to its model, with every mistake gathered before any is told.

A `Draft` is a manifest in work: it holds what could be read and the mistakes so far, also those that
later looks (at parameters, at the entrypoint) add. `Draft.complete()` gives the model or raises.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from penstock.core.errors import Rejected
from penstock.spec.mistakes import InvalidManifest, Mistake, nearest
from penstock.spec.streamjob import API_VERSION, KIND, StreamJob
from penstock.spec.wording import mistakes_of, shown
from penstock.spec.yaml_lines import Document, FieldPath, read_documents

MANIFEST_LENGTH_MAX_BYTES = 1 << 20
"""Of one that a person writes: Kubernetes takes little more."""


@dataclass(slots=True)
class Draft:
    """A manifest in work.

    `source` is its name as the user wrote it, `folder` where its job's modules and relative paths
    are. `job` is None while the fields have mistakes; `document.value` has what was written even so.
    """

    source: str
    folder: Path
    document: Document
    job: StreamJob | None = None
    mistakes: list[Mistake] = field(default_factory=list)

    def line_of(self, *path: str | int) -> int | None:
        """The line of a field, or of the nearest part around it: `line_of("spec", "parallelism")`."""
        return self.document.line_of(path)

    def written(self, *path: str) -> Any:
        """The plain value at that path, None where nothing is."""
        value = self.document.value
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        return value

    def is_wrong(self, *path: str) -> bool:
        """Whether a mistake is known at that very field."""
        return any(m.field == ".".join(path) for m in self.mistakes)

    def complete(self) -> StreamJob:
        """The model. Raises InvalidManifest with all mistakes found."""
        if self.mistakes or self.job is None:
            raise InvalidManifest(self.source, self.mistakes)
        return self.job


@dataclass(frozen=True, slots=True)
class LoadedManifest:
    """A manifest without mistakes; `folder` is the working directory of its job."""

    source: str
    folder: Path
    job: StreamJob
    document: Document

    def line_of(self, *path: str | int) -> int | None:
        """The line of a field, or of the nearest part around it."""
        return self.document.line_of(path)


def load_manifest(path: Path) -> LoadedManifest:
    """The manifest in that file. Raises InvalidManifest, or Rejected when there is no such file."""
    draft = read_manifest(path)
    return LoadedManifest(draft.source, draft.folder, draft.complete(), draft.document)


def read_manifest(path: Path, *, longest_bytes: int | None = None) -> Draft:
    """Like load_manifest, but mistakes wait in the draft.

    Raises Rejected for a file that cannot be read, or is longer than it may be.
    """
    try:
        with path.open("rb") as file:
            data = file.read(-1 if longest_bytes is None else longest_bytes + 1)
    except FileNotFoundError as e:
        raise Rejected(f"there is no file {path}", fix=_other_files(path)) from e
    except IsADirectoryError as e:
        raise Rejected(f"{path} is a folder, not a manifest", fix=_other_files(path / "")) from e
    except OSError as e:
        raise Rejected(
            f"{path} cannot be read: {e.strerror}",
            fix="let this user read it, or name another file",
        ) from e
    if longest_bytes is not None and len(data) > longest_bytes:
        raise Rejected(
            f"{path} is longer than {longest_bytes:,} bytes, more than a manifest can be",
            fix="is it another file? What a job reads goes into files of its own",
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        line = data.count(b"\n", 0, e.start) + 1
        raise InvalidManifest(str(path), [Mistake(line, "the file", "is not UTF-8 text")]) from e
    return validate(text, source=str(path), folder=path.parent)


def _other_files(path: Path) -> str | None:
    folder = path if path.is_dir() else path.parent
    if not folder.is_dir():
        return f"there is no folder {folder} either"
    manifests = sorted(p.name for p in folder.iterdir() if p.suffix in {".yaml", ".yml"})
    if near := nearest(path.name, manifests):
        return f"did you mean {folder / near}?"
    return f"in that folder: {', '.join(manifests[:5])}" if manifests else None


def validate(text: str, *, source: str, folder: Path = Path()) -> Draft:
    """The manifest in a text, as far as it can be read, with every mistake in its fields."""
    documents, mistakes = read_documents(text)
    documents = [d for d in documents if d.value is not None]
    draft = Draft(source, folder, documents[0] if documents else Document(), mistakes=mistakes)
    if not documents and not mistakes:
        mistakes.append(
            Mistake(None, "the file", f"is empty; a manifest begins with apiVersion: {API_VERSION}")
        )
    elif len(documents) > 1:
        line = documents[1].line_of(())
        message = f"a second document begins; a manifest has one, this file {len(documents)}"
        mistakes.append(Mistake(line, "---", message))
    elif documents:
        _check_fields(draft)
    return draft


def draft_of(entrypoint: str, *, folder: Path) -> Draft:
    """A manifest of defaults for `penstock run module:function`; the job has the module's name."""
    name = entrypoint.partition(":")[0].rpartition(".")[2].lower().replace("_", "-").strip("-")
    value = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": name[:40].rstrip("-")},
        "spec": {"entrypoint": entrypoint},
    }
    draft = Draft(entrypoint, folder, Document(value))
    _check_fields(draft)
    return draft


def _check_fields(draft: Draft) -> None:
    value = draft.document.value
    if not isinstance(value, dict):
        line = draft.document.line_of(())
        message = f"must be a block of fields, not {shown(value)}"
        draft.mistakes.append(
            Mistake(line, "the file", message, f"it begins with apiVersion: {API_VERSION}")
        )
        return
    if wrong_kind := _wrong_kind(value, draft.document):
        draft.mistakes.extend(wrong_kind)
        return
    try:
        draft.job = StreamJob.model_validate(value)
    except ValidationError as e:
        known = {m.field for m in draft.mistakes}
        found = mistakes_of(e, StreamJob, draft.document)
        draft.mistakes.extend(m for m in found if m.field not in known)


def _wrong_kind(value: Mapping[str, Any], document: Document) -> list[Mistake]:
    """Of another kind of object every field would be a mistake; these two say it all."""
    mistakes = []
    for name, expected in (("apiVersion", API_VERSION), ("kind", KIND)):
        path: FieldPath = (name,)
        if name in value and value[name] != expected:
            message = f"is {shown(value[name])}; write {expected}"
            mistakes.append(Mistake(document.line_of(path), name, message))
    return mistakes
