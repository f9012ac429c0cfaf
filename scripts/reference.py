"""Writes the pages of docs/reference that are drawn from the code: manifest, Kubernetes, command line, metrics, API.

With `--check` it writes nothing, says which are out of date, and ends with 1 if any is.
"""

from __future__ import annotations

import enum
import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

import click
from prometheus_client.parser import text_string_to_metric_families
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from penstock.spec.changes import FieldClass, class_of
from penstock.spec.without_effect import instead_of
from penstock_operator.resources import crd, names
from penstock_operator.resources.conditions import ConditionType

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "reference"
HEAD = "<!-- Drawn from the code by scripts/reference.py: change that, not this. -->\n\n"

FOR_A_CLUSTER = (
    *("image", "desiredState", "serviceAccountName", "storageCredentials", "deletion", "rescale"),
    *("worker.resources", "worker.podTemplate", "worker.volume", "coordinator"),
    *("upgrade.mode", "upgrade.approval", "upgrade.stableAfter", "upgrade.whenUnhealthy"),
    *("upgrade.holdCommits", "upgrade.rollback", "upgrade.timeout"),
)
"""Fields that only the Kubernetes operator reads."""


# ── manifest ─────────────────────────────────────────────────────────────────────────────────────


def manifest_page() -> str:
    """docs/reference/manifest.md."""
    from penstock.spec.streamjob import StreamJob, StreamJobSpec

    lines = [
        "# The manifest\n",
        "Every field of a `StreamJob`, the YAML that `penstock run` and the Kubernetes operator take.",
        "`penstock graph --schema` prints the same as JSON schema, for editors.",
        "On a cluster `kubectl explain streamjob.spec` answers; status, Savepoint and annotations are on [another page](kubernetes.md).",
        "A field that does not exist, or has a wrong value, is told with its line before anything runs.\n",
        "Durations are written `500ms`, `10s`, `5m`, `1h30m`; sizes `512Mi`, `10Gi`, `500M`.",
        "*No effect yet*: checked and otherwise ignored.",
        "*Kubernetes*: for the Kubernetes operator; ignored by `penstock run`.\n",
        "*A change* says what becomes of a job that runs on Kubernetes when the field changes:\n",
        *(f"- *{name}*: {text}" for name, text in _CHANGES.values()),
        "",
        *_part("StreamJob", StreamJob, "", skip={"spec", "metadata", "status"}),
        *_part("metadata", _part_of(StreamJob, "metadata"), "metadata."),
        *_part("spec", StreamJobSpec, ""),
    ]
    return "\n".join(lines) + "\n"


_CHANGES = {
    FieldClass.UPGRADE: ("upgrade", "a new revision; the job moves to it as `upgrade` says."),
    FieldClass.SCALE: ("rescale", "key groups move between workers; pods stay."),
    FieldClass.OWN: ("a step of its own", "as the field says; no new revision."),
    FieldClass.LIVE: ("at once", "the running job takes it over, without a restart."),
    FieldClass.IGNORE: ("later", "it counts when it is next needed."),
    FieldClass.FORBIDDEN: ("refused", "fixed for the job's life once it is set."),
}
"""By class: its name and what happens."""


def manifest_paths() -> set[str]:
    """Every field and part below `spec`, as in WITHOUT_EFFECT."""
    from penstock.spec.streamjob import StreamJobSpec

    def below(model: type[BaseModel], path: str) -> Iterator[str]:
        for name, field in model.model_fields.items():
            yield (here := f"{path}{field.alias or name}")
            if (part := _model(field)) is not None:
                yield from below(part, f"{here}.")

    return set(below(StreamJobSpec, ""))


def _part(title: str, model: type[BaseModel], path: str, skip: Iterable[str] = ()) -> Iterator[str]:
    fields = {n: f for n, f in model.model_fields.items() if n not in skip}
    plain = {n: f for n, f in fields.items() if _model(f) is None}
    in_spec = title.startswith("spec")
    yield f"## `{title}`\n"
    if path:
        yield f"{inspect.getdoc(model)}\n"
    if plain:
        yield f"| field | value | default | {'a change | ' if in_spec else ''}|"
        yield f"|---|---|---|{'---|' if in_spec else ''}---|"
        for name, field in plain.items():
            key = f"{path}{field.alias or name}"
            about = (field.description or "") + _remark(key)
            change = f"{_CHANGES[class_of(key)][0]} | " if in_spec else ""
            yield (
                f"| `{field.alias or name}` | {_kind(field)} | {_default(field)} | {change}{about} |"
            )
        yield ""
    for name, field in fields.items():
        if (part := _model(field)) is not None:
            below = f"{path}{field.alias or name}"
            yield from _part(f"spec.{below}", part, f"{below}.")


def _remark(key: str) -> str:
    if why := instead_of(key):
        return f" *No effect yet: {why}.*"
    if any(key == known or key.startswith(f"{known}.") for known in FOR_A_CLUSTER):
        return " *Kubernetes.*"
    return ""


def _part_of(model: type[BaseModel], name: str) -> type[BaseModel]:
    found = _model(model.model_fields[name])
    assert found is not None, name
    return found


def _classes(annotation: Any) -> Iterator[Any]:
    yield annotation
    for argument in get_args(annotation):
        yield from _classes(argument)


def _model(field: FieldInfo) -> type[BaseModel] | None:
    found = (c for c in _classes(field.annotation) if isinstance(c, type))
    return next((c for c in found if issubclass(c, BaseModel)), None)


def _kind(field: FieldInfo) -> str:
    from penstock.spec.parts.quantities import DurationMs, SizeBytes

    units = {get_args(DurationMs)[1]: "duration", get_args(SizeBytes)[1]: "size"}
    known = [a for c in _classes(field.annotation) for a in getattr(c, "__metadata__", ())]
    for annotation in (*field.metadata, *known):
        if annotation in units:
            return units[annotation]
    classes = [c for c in _classes(field.annotation) if c is not type(None)]
    for found in classes:
        if isinstance(found, type) and issubclass(found, enum.Enum):
            return " · ".join(f"`{member.value}`" for member in found)
    if literal := [c for c in classes if isinstance(c, str)]:
        return f"`{literal[0]}`"
    origins = {getattr(c, "__origin__", c) for c in classes}
    names = {dict: "map", list: "list", bool: "`true` · `false`", int: "number", str: "text"}
    return next(name for kind, name in names.items() if kind in origins)


def _default(field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True)
    if default is PydanticUndefined:
        return "*needed*"
    if default is None or default in ({}, []):
        return "–"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


# ── Kubernetes ───────────────────────────────────────────────────────────────────────────────────


def kubernetes_page() -> str:
    """docs/reference/kubernetes.md, from the CustomResourceDefinitions."""

    def schema_of(definition: dict[str, Any]) -> Any:
        version = definition["spec"]["versions"][0]
        return version["schema"]["openAPIV3Schema"]["properties"]

    stream_job, savepoint = schema_of(crd.streamjobs()), schema_of(crd.savepoints())
    lines = [
        "# On Kubernetes: status, Savepoint, annotations\n",
        "What a person sets in a `StreamJob` is [the manifest](manifest.md).",
        "This page is what the Kubernetes operator writes, and by which other names it is spoken to.\n",
        "## Annotations of a StreamJob\n",
        "An id is a word of your own choice: the same id again asks for nothing new.\n",
        "| annotation | value | |\n|---|---|---|",
        *(f"| `{name}` | {value} | {about} |" for name, (value, about) in _ANNOTATIONS.items()),
        "",
        "## Labels\n",
        f"Everything that belongs to a StreamJob has `{names.LABEL_JOB}` with its name;",
        f"pods and ControllerRevisions have `{names.LABEL_REVISION}` too.\n",
        "## Conditions of a StreamJob\n",
        f"{', '.join(f'`{kind}`' for kind in ConditionType)}, each with the generation that it is about.",
        "`Ready`, `Reconciling` and `Stalled` mean what kstatus and GitOps tools take them for.\n",
        *_schema_part("StreamJob: status", stream_job["status"]),
        *_schema_part("Savepoint: spec", savepoint["spec"]),
        *_schema_part("Savepoint: status", savepoint["status"]),
    ]
    return "\n".join(lines).rstrip() + "\n"


_ANNOTATIONS = {
    names.ANNOTATION_SAVEPOINT: ("an id", "Take a savepoint; the job runs on."),
    names.ANNOTATION_CHECKPOINT: ("an id", "Take a checkpoint now."),
    names.ANNOTATION_RESTART: ("an id", "Stop with a savepoint and start again from it."),
    names.ANNOTATION_RETRY: ("an id", "Try a revision again that failed."),
    names.ANNOTATION_APPROVE: (
        "the plan's id",
        "Let an upgrade with `approval: Manual` begin. *No effect yet.*",
    ),
    names.ANNOTATION_ROLLBACK: ("an id", "Go back to the last stable revision."),
    names.ANNOTATION_RECONCILE: ("`paused`", "Leave this job alone until the annotation goes."),
    names.ANNOTATION_DELETION: ("`force`", "Let a deleted StreamJob go at once; its state stays."),
}


def _schema_part(title: str, schema: dict[str, Any]) -> Iterator[str]:
    yield f"## {title}\n\n{schema['description']}\n\n| field | value | |\n|---|---|---|"
    below = []
    for name, field in schema["properties"].items():
        inner = field.get("items") or field.get("additionalProperties") or field
        yield f"| `{name}` | {_schema_kind(field)} | {field['description']} |"
        if "properties" in inner:
            below.append((name, inner))
    yield ""
    for name, inner in below:
        yield from _schema_part(f"{title}.{name}", inner)


def _schema_kind(field: dict[str, Any]) -> str:
    if "enum" in field:
        return " · ".join(f"`{value}`" for value in field["enum"])
    if field.get("format") == "date-time":
        return "time"
    if field["type"] == "object" and "properties" in field:
        return "below"
    kinds = {"boolean": "`true` · `false`", "integer": "number", "string": "text"}
    kinds |= {"array": "list", "object": "map"}
    return kinds[field["type"]]


# ── command line ─────────────────────────────────────────────────────────────────────────────────


def command_line_page() -> str:
    """docs/reference/command-line.md."""
    from penstock.cli.root import root, root_help

    context = click.Context(root, info_name="penstock")
    lines = [
        "# The command line\n",
        "What `--help` prints, page by page.",
        "Exit codes: 0 done, 1 the job failed, 2 the request is wrong, 3 not reachable, try again, 4 stored data is damaged, 130 cancelled.",
        "Results go to standard output, everything else to standard error.\n",
        f"```text\n{root_help(everything=True)}```\n",
    ]
    for name in root.list_commands(context):
        command = root.get_command(context, name)
        assert command is not None, name
        lines += _command(command, click.Context(command, info_name=name, parent=context))
    lines += [
        "## penstock worker, penstock coordinator\n",
        "The processes of a job one by one, as pods run them; `--help` lists their flags.",
        "Without `--manifest` they take themselves to be in a pod, and need no flag at all:\n",
        "| | in a pod | variable |\n|---|---|---|",
        *(f"| {what} | {place} | {variable} |" for what, place, variable in _IN_PODS),
        "\nWhat ends with an error leaves `{what, where, fix, exitCode}` as JSON of at most 4 KiB in its",
        "termination message. Exit codes are those of `penstock`, and 5 of a coordinator that stands",
        "down because another one, or another owner, has the job.\n",
    ]
    dispose = root.get_command(context, "dispose")
    assert dispose is not None
    lines += _command(dispose, click.Context(dispose, info_name="dispose", parent=context))
    return "\n".join(lines) + "\n"


_IN_PODS = (
    ("manifest", "`/etc/penstock/streamjob.yaml`", "`PENSTOCK_MANIFEST`"),
    ("token", "`/etc/penstock/token`", "`PENSTOCK_TOKEN`, or `PENSTOCK_TOKEN_FILE`"),
    ("the author's modules, working directory", "`/job`", "`PENSTOCK_FOLDER`"),
    ("a worker's disk", "`/var/lib/penstock`", "`PENSTOCK_VOLUME`"),
    ("a worker's number", "end of the host name", "flag `--worker`"),
    ("coordinator", "", "`PENSTOCK_COORDINATOR`, HOST:PORT"),
    ("namespace, for the job's id", "", "`PENSTOCK_NAMESPACE`"),
    ("owner of the log", "`local/<host>`", "`PENSTOCK_OWNER`"),
    ("revision", "hash of the manifest", "`PENSTOCK_REVISION`"),
    ("address for other workers", "as the coordinator sees it", "`PENSTOCK_POD_IP`"),
    ("style of log lines", "`json`", "`PENSTOCK_LOG`, `json` or `plain`"),
    ("termination message", "`/dev/termination-log`", "`PENSTOCK_TERMINATION_LOG`"),
    ("registered with the coordinator", "file `registered` on the disk", ""),
)


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    yield f"## {context.command_path}\n\n```text\n{command.get_help(context).rstrip()}\n```\n"
    for name, below in getattr(command, "commands", {}).items():
        page = below.get_help(click.Context(below, info_name=name, parent=context))
        yield f"### {context.command_path} {name}\n\n```text\n{page.rstrip()}\n```\n"


# ── metrics ──────────────────────────────────────────────────────────────────────────────────────


def metrics_page() -> str:
    """docs/reference/metrics.md, from what a coordinator of a made-up job collects."""
    from penstock.core.ids import CheckpointId
    from penstock.runtime.job_view import CheckpointRecord, CheckpointStatus, JobView
    from penstock.runtime.metrics import metrics_page as page_of
    from penstock.spec.orders import JobPhase, JobStatus, OperatorStatus

    done = CheckpointRecord(CheckpointId(1), savepoint=False, started_ms=0, ended_ms=1)
    done.status = CheckpointStatus.COMPLETED
    view = JobView(started_ms=0)
    view.checkpoints.append(done)
    operator = OperatorStatus(
        id="counts", label="count", kind="count", parallelism=1, busy=0.5, state_bytes=1
    )
    status = JobStatus.model_construct(
        job_id="wordcount",
        phase=JobPhase.RUNNING,
        started_at_ms=0,
        attempt=1,
        parallelism=1,
        workers=(),
        restarts=0,
        operators=(operator,),
    )
    lines = [
        "# Metrics\n",
        "What the coordinator of a running job answers at `/metrics`, on the port that `penstock list` shows, on Kubernetes 8081, in Prometheus' format.",
        "Every series has the label `job`; a job that has ended has no endpoint.",
        "Counts of an operator are of the newest attempt: they begin at 0 after a restart, as counters of Prometheus may.\n",
        "| metric | kind | labels beside `job` | |\n|---|---|---|---|",
    ]
    told, _ = page_of(view, status, now_ms=1)
    for family in text_string_to_metric_families(told.decode()):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = sorted({label for sample in family.samples for label in sample.labels} - {"job"})
        shown = ", ".join(f"`{label}`" for label in labels)
        lines.append(f"| `{name}` | {family.type} | {shown} | {family.documentation} |")
    lines += [
        "",
        'Worth an alert: `penstock_last_checkpoint_age_seconds` above a few intervals, an increase of `penstock_restarts_total`, `penstock_job_phase{phase="Failed"} == 1`, and a target that is down.',
    ]
    return "\n".join([*lines, "", *_operators_metrics()]) + "\n"


def _operators_metrics() -> Iterator[str]:
    """What the Kubernetes operator counts about itself."""
    from penstock_operator.cluster.loop.metrics import Metrics

    yield "## The Kubernetes operator's own\n"
    yield "What the operator's pod answers at `/metrics` on port 8080, the Service `penstock-metrics`.\n"
    yield "| metric | kind | labels | |\n|---|---|---|---|"
    metrics = Metrics()
    metrics.turned("done", 0.1)
    for family in text_string_to_metric_families(metrics.page().decode()):
        if family.name.endswith("_created"):
            continue
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = sorted({label for sample in family.samples for label in sample.labels} - {"le"})
        shown = ", ".join(f"`{label}`" for label in labels)
        yield f"| `{name}` | {family.type} | {shown} | {family.documentation} |"


# ── API ──────────────────────────────────────────────────────────────────────────────────────────

_MODULES = ("sources", "sinks", "formats", "aggregates", "testing", "snapshots")
_FOR_US = {"beside", "descriptor", "spec", "nodes", "graph"}
"""Methods that the runtime calls, on classes that authors use."""
_TITLES = {
    "sources": "Where records come from.",
    "sinks": "Where records go.",
    "formats": "How records look in files and on sockets.",
    "aggregates": "Ready aggregates for `.aggregate(…)` and `AggregatingState`.",
    "testing": "For tests of jobs; imported by name.",
    "snapshots": "Checkpoints and savepoints read without a job; imported by name.",
}


def api_page() -> str:
    """docs/reference/api.md."""
    import penstock

    names = [n for n in penstock.__all__ if n not in _MODULES and n != "__version__"]
    lines = [
        "# The author's API\n",
        "Everything that is public, one line each; the docstrings say more.",
        "Nothing else is: modules that are not named here may change at any time.\n",
        "## `penstock`\n",
        "`penstock.__version__` is the version of the library.\n",
        *_names(penstock, names),
    ]
    for name in _MODULES:
        module = importlib.import_module(f"penstock.{name}")
        lines += [f"## `penstock.{name}`\n", f"{_TITLES[name]}\n"]
        lines += _names(module, _public(module))
    return "\n".join(lines).rstrip() + "\n"


def _public(module: Any) -> list[str]:
    declared = getattr(module, "__all__", None)
    if declared is not None:
        return list(declared)
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == module.__name__
    ]


def _names(module: Any, names: Iterable[str]) -> Iterator[str]:
    yield "| | |\n|---|---|"
    details = []
    for name in names:
        value = getattr(module, name)
        yield f"| `{name}` | {_first_sentence(value)} |"
        methods = dict(_methods(value))
        if methods:
            details.append(f"### `{name}`\n\n| | |\n|---|---|")
            details += [f"| `.{m}` | {text} |" for m, text in methods.items()]
            details.append("")
    yield ""
    yield from details


def _methods(value: Any) -> Iterator[tuple[str, str]]:
    """What a class has beyond what it inherits; the runtime's own doors are left out."""
    if not inspect.isclass(value) or issubclass(value, Exception):
        return
    for name, member in vars(value).items():
        is_method = inspect.isfunction(member) or isinstance(member, property | classmethod)
        text = _first_sentence(getattr(member, "__func__", member)) if is_method else ""
        if text and not text.startswith("See ") and name[0] != "_" and name not in _FOR_US:
            yield name, text


def _first_sentence(value: Any) -> str:
    paragraph = " ".join((value.__doc__ or "").split("\n\n")[0].split())
    sentence, dot, _ = paragraph.partition(". ")
    return (sentence + dot.strip()).replace("|", r"\|")


PAGES: dict[str, Callable[[], str]] = {
    "manifest.md": manifest_page,
    "kubernetes.md": kubernetes_page,
    "command-line.md": command_line_page,
    "metrics.md": metrics_page,
    "api.md": api_page,
}


def out_of_date() -> list[str]:
    """The names of pages that are not as they would be written now."""
    return [
        name
        for name, page in PAGES.items()
        if not (FOLDER / name).exists() or (FOLDER / name).read_text() != HEAD + page()
    ]


def main() -> int:
    """Write the pages, or check them."""
    old = out_of_date()
    if "--check" in sys.argv[1:]:
        for name in old:
            print(f"docs/reference/{name} is out of date; run scripts/reference.py")
        return 1 if old else 0
    for name in old:
        (FOLDER / name).write_text(HEAD + PAGES[name]())
        print(f"docs/reference/{name} written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
