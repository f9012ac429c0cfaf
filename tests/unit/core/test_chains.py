"""Which operators run in one loop, and what connects the loops."""

from penstock.core.chains import (
    chains,
    exchange_of,
    input_channels,
    output_channels,
    subtasks_by_worker,
)
from penstock.core.graph import Edge, Exchange, JobGraph, Operator
from penstock.core.ids import ChannelId, OperatorId, SubtaskId


def graph(edges: str, **parallelism: int) -> JobGraph:
    """`a-b` is forward, `a=b` hash, `a~b` rebalance; operators in order of their names."""
    how = {"-": Exchange.FORWARD, "=": Exchange.HASH, "~": Exchange.REBALANCE}
    made = tuple(Edge(OperatorId(e[0]), OperatorId(e[2]), how[e[1]]) for e in edges.split())
    names = sorted({uid for e in made for uid in (e.source, e.target)})
    operators = tuple(Operator(n, "map", parallelism=parallelism.get(n)) for n in names)
    return JobGraph("job", operators, made)


def heads(g: JobGraph, parallelism: int = 4) -> list[str]:
    return ["".join(chain.operators) for chain in chains(g, parallelism=parallelism)]


def test_forward_edges_are_chained_and_exchanges_are_not():
    assert heads(graph("a-b b=c c-d")) == ["ab", "cd"]


def test_a_chain_may_branch():
    assert heads(graph("a-b a-c c-d")) == ["abcd"]


def test_an_operator_with_two_inputs_begins_a_chain():
    assert heads(graph("a-c b-c c-d")) == ["a", "b", "cd"]


def test_unequal_parallelism_breaks_a_chain_and_rebalances():
    g = graph("a-b", b=1)
    assert heads(g) == ["a", "b"]
    assert exchange_of(g, g.edges[0], parallelism=4) is Exchange.REBALANCE
    assert heads(g, parallelism=1) == ["ab"]


def test_channels_of_an_exchange_connect_all_with_all():
    g = graph("a=b", b=2)
    a, b = chains(g, parallelism=3)
    assert input_channels(g, a, 0, parallelism=3) == ()
    assert input_channels(g, b, 1, parallelism=3) == tuple(ChannelId(0, i, 1) for i in range(3))
    assert output_channels(g, a, 2, parallelism=3) == tuple(ChannelId(0, 2, i) for i in range(2))


def test_a_forward_edge_that_is_not_chained_connects_equal_indexes():
    g = graph("a-c b=c")
    c = chains(g, parallelism=2)[2]
    assert input_channels(g, c, 1, parallelism=2) == (
        ChannelId(0, 1, 1),
        ChannelId(1, 0, 1),
        ChannelId(1, 1, 1),
    )


def test_a_narrow_operators_subtasks_lie_spread_over_the_placement():
    g = graph("a=b", b=2)
    found = subtasks_by_worker(g, placement=(3, 2, 1, 0))
    assert [w for w, subtasks in found.items() if SubtaskId(OperatorId("b"), 0) in subtasks] == [3]
    assert [w for w, subtasks in found.items() if SubtaskId(OperatorId("b"), 1) in subtasks] == [1]
    assert sum(len(s) for s in found.values()) == 6
