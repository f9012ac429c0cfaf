"""`penstock graph`: a job's operators and the state each one declares."""

from __future__ import annotations

import json

import click

from penstock.cli.help import Command, Option
from penstock.cli.job import Job, build, load, max_parallelism
from penstock.cli.options import parameter_option
from penstock.cli.output import output_option, print_json
from penstock.cli.tables import table
from penstock.core.descriptors import StateDescriptor, StateKind
from penstock.core.errors import Rejected
from penstock.core.graph import Edge, Exchange, JobGraph, Operator
from penstock.spec.parameters import Parameter, describe_parameters

STATE_NAMES = {
    StateKind.VALUE: "ValueState",
    StateKind.LIST: "ListState",
    StateKind.MAP: "MapState",
    StateKind.REDUCING: "ReducingState",
    StateKind.AGGREGATING: "AggregatingState",
    StateKind.SPLIT_LIST: "SplitListState",
    StateKind.UNION_LIST: "UnionListState",
}
_OF_THE_RUNTIME = "json/1"
_KIND_WIDTH = 6
_INSET = " " * 13


def _run(target: str | None, parameters: tuple[str, ...], form: str | None, schema: bool) -> None:
    if schema:
        from penstock.spec.streamjob import json_schema

        click.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))
        return
    if target is None:
        raise Rejected(
            "no job is named",
            where="penstock graph",
            fix="give a manifest or module:function, as in penstock graph streamjob.yaml",
        )
    job = load(target, parameters)
    graph = build(job).graph()
    match form:
        case "json":
            print_json(graph.to_json())
        case "mermaid":
            click.echo(mermaid(graph), nl=False)
        case "dot":
            click.echo(dot(graph), nl=False)
        case _:
            click.echo(text(job, graph), nl=False)


graph_command = Command(
    "graph",
    usage="MANIFEST|MODULE:FUNCTION [OPTIONS]",
    callback=_run,
    examples="""\
      penstock graph streamjob.yaml                 operators, their state, their types
      penstock graph wordcount:job -p input=a.txt   without a manifest
      penstock graph --schema                       JSON schema of every field of a manifest""",
    params=[
        click.Argument(["target"], required=False),
        parameter_option(),
        output_option("mermaid", "dot"),
        Option(["--schema"], is_flag=True, help="JSON schema of the manifest, for editors"),
    ],
)


def text(job: Job, graph: JobGraph) -> str:
    """The graph for people, operator by operator, with an edge's line where records cross workers."""
    manifest = job.manifest
    parallelism = manifest.spec.parallelism
    head = [
        graph.name,
        manifest.spec.entrypoint or "script",
        f"parallelism {parallelism}, at most {max_parallelism(manifest, parallelism)}",
    ]
    rows: list[tuple[str, ...]] = []
    for i, operator in enumerate(graph.operators):
        rows += _edge_rows(graph, operator, graph.operators[i - 1] if i else None)
        rows.append(_operator_row(operator, parallelism))
        rows += _declared_rows(operator)
    body = _aligned(rows)
    return f"{' · '.join(head)}\n\n{body}{_parameters(describe_parameters(job.bound.function))}"


def _aligned(rows: list[tuple[str, ...]]) -> str:
    """Names, what it runs, its type, a remark. A name that is wider than its column pushes only its
    own line."""
    first = max([11, *(len(r[0]) + 2 for r in rows if not r[0].startswith(" " * 13))])
    texts = [
        f"{name:<{first}}{what}" if not name.startswith("  ") or what else name
        for name, what, *_ in rows
    ]
    second = max(len(t) for t in texts) + 2
    third = max([0, *(len(r[2]) for r in rows if r[3])]) + 2
    lines = []
    for start, (_, _, type_text, note) in zip(texts, rows, strict=True):
        line = f"{start:<{second}}{type_text:<{third if type_text else 0}}{note}"
        lines.append(line.rstrip() + "\n")
    return "".join(lines)


def _operator_row(operator: Operator, parallelism: int) -> tuple[str, ...]:
    name = str(operator.id) if operator.uid else f"  {operator.label}"
    note = operator.note
    what = operator.kind
    if operator.uid and operator.label not in ("", operator.kind):
        what = f"{operator.kind:<{_KIND_WIDTH}}  {operator.label}"
    elif not operator.uid:
        what = f"{operator.kind:<{_KIND_WIDTH}}  {operator.location}"
    if operator.kind not in ("source", "sink") and note:
        what, note = f"{what}, {note}", ""
    if operator.parallelism not in (None, parallelism):
        note = f"{note}, parallelism {operator.parallelism}".removeprefix(", ")
    if operator.kind == "sink":
        return name, what.rstrip(), "", note
    if operator.record_schema is None:
        return name, what.rstrip(), "→ ?", note or _to_annotate(operator)
    return name, what.rstrip(), f"→ {operator.record_schema}", note


def _to_annotate(operator: Operator) -> str:
    if operator.kind in ("source", "filter") or operator.label.startswith("lambda"):
        return ""
    if operator.kind in ("count", "reduce", "aggregate"):
        return "annotate the function of key_by, or give key_type="
    what = f"{operator.label}.process" if operator.kind == "process" else operator.label
    return f"annotate what {what}() returns"


def _edge_rows(
    graph: JobGraph, operator: Operator, before: Operator | None
) -> list[tuple[str, ...]]:
    edges = graph.inputs(operator.id)
    if not edges:
        return []
    plain = before is not None and [(e.source, e.side) for e in edges] == [(before.id, None)]
    origin = "" if plain else "from " + ", ".join(_origin(graph, e) for e in edges)
    match edges[0].exchange:
        case Exchange.HASH:
            key = operator.key_schema or "observed from the first"
            return [("  ═ by key", f"{operator.key or ''}  {origin}".strip(), f"key: {key}", "")]
        case Exchange.REBALANCE:
            return [("  ═ spread", f"evenly  {origin}".strip(), "", "")]
        case _:
            return [("  ←", origin, "", "")] if origin else []


def _origin(graph: JobGraph, edge: Edge) -> str:
    source = graph.operator(edge.source)
    name = str(source.id) if source.uid else source.label
    return f"{name}.{edge.side}" if edge.side else name


def type_of(state: StateDescriptor) -> str:
    """`int`; a map's with its key: `str → int`."""
    return state.schema if state.sub_schema is None else f"{state.sub_schema} → {state.schema}"


def _declared_rows(operator: Operator) -> list[tuple[str, ...]]:
    states = [state for state in operator.states if state.serializer != _OF_THE_RUNTIME]
    rows = [(state.name, STATE_NAMES[state.kind], type_of(state)) for state in states]
    rows += [(name, "SideOutput", "") for name in operator.side_outputs]
    return [(line, "", "", "") for line in table(rows, indent=_INSET).splitlines()]


def _parameters(parameters: tuple[Parameter, ...]) -> str:
    if not parameters:
        return ""
    rows = [(p.name, str(p).partition(" (")[2].removesuffix(")"), p.help or "") for p in parameters]
    return "\nparameters\n" + table(rows, indent="  ")


def mermaid(graph: JobGraph) -> str:
    """For a Markdown page."""
    lines = ["flowchart LR"]
    for operator in graph.operators:
        shape = ("([{}])" if operator.kind in ("source", "sink") else "[{}]").format(
            f'"{_title(operator, "<br>")}"'
        )
        lines.append(f"  {operator.id}{shape}")
    for edge in graph.edges:
        arrow = "-->" if edge.exchange is Exchange.FORWARD else "==>"
        word = _edge_word(graph, edge)
        lines.append(f"  {edge.source} {arrow}{f'|{word}|' if word else ''} {edge.target}")
    return "\n".join(lines) + "\n"


def dot(graph: JobGraph) -> str:
    """For Graphviz."""
    lines = [f"digraph {_quoted(graph.name)} {{", "  rankdir=LR; node [shape=box];"]
    lines += [
        f"  {_quoted(operator.id)} [label={_quoted(_title(operator, chr(10)))}];"
        for operator in graph.operators
    ]
    for edge in graph.edges:
        style = "" if edge.exchange is Exchange.FORWARD else ", style=bold"
        label = _quoted(_edge_word(graph, edge))
        lines.append(f"  {_quoted(edge.source)} -> {_quoted(edge.target)} [label={label}{style}];")
    return "\n".join([*lines, "}"]) + "\n"


def _title(operator: Operator, newline: str) -> str:
    first = str(operator.id) if operator.uid else operator.kind
    second = operator.kind if operator.label in ("", operator.kind) else operator.label
    return newline.join([first, second.replace('"', "'")])


def _edge_word(graph: JobGraph, edge: Edge) -> str:
    words = [edge.side or ""]
    if edge.exchange is not Exchange.FORWARD:
        words.append("by key" if edge.exchange is Exchange.HASH else "spread")
    return " ".join(filter(None, words))


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
