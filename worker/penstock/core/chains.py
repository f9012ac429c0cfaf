"""Chains and channels: which operators run in one loop, and what connects the loops.

A forward edge between operators of equal parallelism is chained when it is the target's only input.
The first operator of a chain, its head, names the chain's subtasks. Every other edge is a bundle of
channels. The coordinator, the mailbox and the simulator all ask here, so that they agree.
"""

from __future__ import annotations

from dataclasses import dataclass

from penstock.core.graph import Edge, Exchange, JobGraph, Operator
from penstock.core.ids import ChannelId, OperatorId, SubtaskId, WorkerId


@dataclass(frozen=True, slots=True)
class Chain:
    """Operators that run in one loop, in topological order; the first is the head."""

    operators: tuple[OperatorId, ...]
    parallelism: int

    @property
    def head(self) -> OperatorId:
        """The operator that names the chain's subtasks."""
        return self.operators[0]

    def subtasks(self) -> tuple[SubtaskId, ...]:
        """The chain's subtasks, by index."""
        return tuple(SubtaskId(self.head, i) for i in range(self.parallelism))


def operator_parallelism(operator: Operator, *, parallelism: int) -> int:
    """The operator's own parallelism, never above the job's."""
    return min(operator.parallelism or parallelism, parallelism)


def chains(graph: JobGraph, *, parallelism: int) -> tuple[Chain, ...]:
    """The job's chains in topological order of their heads; each operator is in exactly one."""
    members: dict[OperatorId, list[OperatorId]] = {}
    head_of: dict[OperatorId, OperatorId] = {}
    for operator in graph.operators:
        inputs = graph.inputs(operator.id)
        if len(inputs) == 1 and _chained(graph, inputs[0], parallelism):
            head = head_of[inputs[0].source]
        else:
            head = operator.id
            members[head] = []
        head_of[operator.id] = head
        members[head].append(operator.id)
    return tuple(
        Chain(
            tuple(operators),
            operator_parallelism(graph.operator(head), parallelism=parallelism),
        )
        for head, operators in members.items()
    )


def is_chained(graph: JobGraph, edge: Edge, *, parallelism: int) -> bool:
    """Whether records of this edge stay within one loop."""
    return len(graph.inputs(edge.target)) == 1 and _chained(graph, edge, parallelism)


def exchange_of(graph: JobGraph, edge: Edge, *, parallelism: int) -> Exchange:
    """How the edge really exchanges: forward between unequal parallelisms becomes rebalance."""
    if edge.exchange is Exchange.FORWARD and not _is_equal(graph, edge, parallelism):
        return Exchange.REBALANCE
    return edge.exchange


def input_channels(
    graph: JobGraph, chain: Chain, index: int, *, parallelism: int
) -> tuple[ChannelId, ...]:
    """The channels into one subtask of a chain, in order of edges, then of sources.

    `ChannelId.edge` is the edge's place in `graph.edges`; a source has no channels.
    """
    found: list[ChannelId] = []
    for number, edge in enumerate(graph.edges):
        if edge.target == chain.head and not is_chained(graph, edge, parallelism=parallelism):
            if exchange_of(graph, edge, parallelism=parallelism) is Exchange.FORWARD:
                found.append(ChannelId(number, index, index))
            else:
                source = graph.operator(edge.source)
                width = operator_parallelism(source, parallelism=parallelism)
                found += [ChannelId(number, i, index) for i in range(width)]
    return tuple(found)


def output_channels(
    graph: JobGraph, chain: Chain, index: int, *, parallelism: int
) -> tuple[ChannelId, ...]:
    """The channels out of one subtask of a chain, in order of edges, then of targets."""
    found: list[ChannelId] = []
    for number, edge in enumerate(graph.edges):
        if edge.source in chain.operators and not is_chained(graph, edge, parallelism=parallelism):
            if exchange_of(graph, edge, parallelism=parallelism) is Exchange.FORWARD:
                found.append(ChannelId(number, index, index))
            else:
                target = graph.operator(edge.target)
                width = operator_parallelism(target, parallelism=parallelism)
                found += [ChannelId(number, index, i) for i in range(width)]
    return tuple(found)


def worker_of(index: int, *, parallelism: int, placement: tuple[int, ...]) -> WorkerId:
    """The worker of subtask `index` of an operator of this parallelism."""
    return WorkerId(placement[index * len(placement) // parallelism])


def subtasks_by_worker(
    graph: JobGraph, *, placement: tuple[int, ...]
) -> dict[WorkerId, tuple[SubtaskId, ...]]:
    """What each worker runs, chains named by their heads; the job's parallelism is the placement's
    length."""
    found: dict[WorkerId, list[SubtaskId]] = {WorkerId(w): [] for w in sorted(placement)}
    for chain in chains(graph, parallelism=len(placement)):
        for subtask in chain.subtasks():
            worker = worker_of(subtask.index, parallelism=chain.parallelism, placement=placement)
            found[worker].append(subtask)
    return {worker: tuple(subtasks) for worker, subtasks in found.items()}


def _chained(graph: JobGraph, edge: Edge, parallelism: int) -> bool:
    return edge.exchange is Exchange.FORWARD and _is_equal(graph, edge, parallelism)


def _is_equal(graph: JobGraph, edge: Edge, parallelism: int) -> bool:
    source, target = graph.operator(edge.source), graph.operator(edge.target)
    return operator_parallelism(source, parallelism=parallelism) == operator_parallelism(
        target, parallelism=parallelism
    )
