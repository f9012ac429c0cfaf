import json
from dataclasses import replace

import pytest

from penstock.core.descriptors import StateDescriptor, StateKind
from penstock.core.graph import Edge, Exchange, JobGraph, Operator, first_difference
from penstock.core.ids import OperatorId

LINES, COUNTS, OUT = OperatorId("lines"), OperatorId("counts"), OperatorId("out")
GRAPH = JobGraph(
    name="words",
    operators=(
        Operator(LINES, "source", label="Files", location="wordcount.py:17", uid=True),
        Operator(
            COUNTS,
            "process",
            key="word",
            key_schema="str",
            states=(StateDescriptor("count", StateKind.VALUE, "msgpack/1", "int"),),
            side_outputs=("late",),
        ),
        Operator(OUT, "sink", parallelism=1),
    ),
    edges=(
        Edge(LINES, COUNTS, Exchange.HASH),
        Edge(COUNTS, OUT, Exchange.REBALANCE),
        Edge(COUNTS, OUT, Exchange.REBALANCE, side="late"),
    ),
)


def with_operator(i: int, **changes: object) -> JobGraph:
    operators = list(GRAPH.operators)
    operators[i] = replace(operators[i], **changes)
    return replace(GRAPH, operators=tuple(operators))


def with_edge(i: int, **changes: object) -> JobGraph:
    edges = list(GRAPH.edges)
    edges[i] = replace(edges[i], **changes)
    return replace(GRAPH, edges=tuple(edges))


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (
            with_operator(1, key_schema="int"),
            "operator counts (process): keySchema is 'str' here and 'int' there",
        ),
        (
            with_operator(0, id=OperatorId("in")),
            "operator lines (source): id is 'lines' here and 'in' there",
        ),
        (
            with_edge(0, exchange=Exchange.FORWARD),
            "edge lines → counts: exchange is 'hash' here and 'forward' there",
        ),
        (with_edge(2, side=None), "edge counts → out: side is 'late' here and None there"),
        (
            replace(GRAPH, operators=GRAPH.operators[:2]),
            "operator out (sink) exists only here",
        ),
        (
            replace(GRAPH, operators=(*GRAPH.operators, Operator(OperatorId("x"), "map"))),
            "operator x (map) exists only there",
        ),
        (replace(GRAPH, edges=GRAPH.edges[:1]), "edge counts → out exists only here"),
    ],
)
def test_the_first_difference_is_a_sentence(other: JobGraph, sentence: str):
    assert first_difference(GRAPH.to_json(), other.to_json()) == sentence
    assert GRAPH.digest != other.digest


def test_a_field_that_only_one_side_knows_is_a_difference():
    other = GRAPH.to_json()
    other["operators"][2]["newer"] = "x"

    sentence = "operator out (sink): newer is None here and 'x' there"
    assert first_difference(GRAPH.to_json(), other) == sentence
    assert first_difference(other, GRAPH.to_json()) == (
        "operator out (sink): newer is 'x' here and None there"
    )


def test_equal_graphs_have_no_difference_even_after_a_journey_through_json():
    assert first_difference(GRAPH.to_json(), json.loads(json.dumps(GRAPH.to_json()))) is None


def test_the_name_of_the_job_is_no_difference():
    other = replace(GRAPH, name="another")
    assert first_difference(GRAPH.to_json(), other.to_json()) is None
    assert GRAPH.digest == other.digest


def test_operators_are_found_with_their_edges():
    assert GRAPH.operator(COUNTS).is_keyed
    assert not GRAPH.operator(OUT).is_keyed
    assert [e.source for e in GRAPH.inputs(COUNTS)] == [LINES]
    assert [e.side for e in GRAPH.outputs(COUNTS)] == [None, "late"]
