"""An attempt's subtasks on one worker, put together: first what restores, then what connects.

`Assembly` opens backends, readers, writers and functions from what the coordinator says they start
from; `wire` joins them with each other and with the channels, once the others' addresses are known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.core import paths
from penstock.core.chains import (
    Chain,
    chains,
    exchange_of,
    input_channels,
    is_chained,
    operator_parallelism,
)
from penstock.core.errors import Rejected
from penstock.core.graph import Edge, JobGraph, first_difference
from penstock.core.graph import Exchange as ExchangeKind
from penstock.core.handles import KeyedFormat
from penstock.core.ids import AttemptNumber, ChannelId, JobId, OperatorId, SubtaskId
from penstock.core.keygroups import KeyGroupRange, owned_range
from penstock.core.snapshots import OperatorRestore
from penstock.dataflow.connector import Sink, SinkContext, Source, SourceContext
from penstock.dataflow.nodes import Node
from penstock.network.frames import Prepare
from penstock.network.port import Input, Output
from penstock.runtime.backends import cached_keys_max, folder_in, open_backend
from penstock.runtime.endpoints import SinkStage, SourceStage
from penstock.runtime.exchange import ByKey, Exchange, InTurns, Straight
from penstock.runtime.functions import begin_function, keyed_specs
from penstock.runtime.program import Program
from penstock.runtime.stages import STATELESS, Down, KeyedStage, ProcessStage, Stage, fan
from penstock.runtime.task import Task, Wiring
from penstock.state.backend import LocalPart
from penstock.state.directories import LocalDirectories
from penstock.state.keyed import KeyedStates
from penstock.state.operator_state import OperatorList


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an attempt's tasks get from outside: the clock, folders, the ends of channels.

    Working state lies in `work_folder`, or below one of `directories` where there are any.
    """

    job: JobId
    now_ms: Callable[[], int]
    work_folder: Path
    warn: Callable[[str], None]
    input_of: Callable[[ChannelId], Input]
    directories: LocalDirectories | None = None


@dataclass(slots=True)
class _Part:
    """One subtask, restored and not yet wired."""

    subtask: SubtaskId
    chain: Chain
    stages: dict[OperatorId, Stage]
    inputs: list[Input]
    folder: Path
    lists: dict[OperatorId, dict[str, OperatorList]] = field(default_factory=dict)


class Assembly:
    """See the module.

    Raises (all methods):
        PenstockError: the graph differs from the coordinator's, or something cannot be restored.
    """

    def __init__(self, program: Program, plan: Prepare, around: Surroundings) -> None:
        difference = first_difference(program.graph.to_json(), plan.graph)
        if difference is not None:
            raise Rejected(
                f"job() built another graph here than in the coordinator: {difference}",
                where="job(env, …)",
                fix="make it deterministic: no time, randomness, environment or host in its decisions",
            )
        self._program = program
        self._plan = plan
        self._around = around
        self._graph: JobGraph = program.graph
        self._nodes = {n.id: n for n in program.environment.nodes()}
        by_head = {c.head: c for c in chains(self._graph, parallelism=plan.parallelism)}
        self._parts: list[_Part] = []
        for subtask in plan.subtasks:
            chain = by_head[subtask.operator]
            if plan.commit_only and not any(
                isinstance(self._nodes[id].runs, Sink) for id in chain.operators
            ):
                continue
            self._parts.append(self._restore(subtask, chain))

    def wire(self, output_of: Callable[[ChannelId], Output]) -> list[Task]:
        """The tasks, connected; in an attempt that only commits they have no input and no output."""
        return [self._wire(part, output_of) for part in self._parts]

    # ── restoring ────────────────────────────────────────────────────────────────────────────────

    def _restore(self, subtask: SubtaskId, chain: Chain) -> _Part:
        part = _Part(subtask, chain, {}, [], self._folder(subtask))
        for id in chain.operators:
            node = self._nodes[id]
            if self._plan.commit_only and not isinstance(node.runs, Sink):
                continue
            restore = self._plan.restore.get(id, {}).get(subtask.index)
            part.stages[id] = self._stage(part, node, restore)
        if not self._plan.commit_only:
            part.inputs = [
                self._around.input_of(channel)
                for channel in input_channels(
                    self._graph, chain, subtask.index, parallelism=self._plan.parallelism
                )
            ]
        return part

    def _folder(self, subtask: SubtaskId) -> Path:
        """Where the subtask's database lies, and what is copied out of it by hard links."""
        base = self._around.work_folder
        is_keyed = self._nodes[subtask.operator].key is not None
        if is_keyed and self._around.directories is not None:
            directory = self._around.directories.choose()
            base = folder_in(directory, self._around.job, base.parent) / base.name
        return base / f"{subtask.operator}-{subtask.index}"

    def _stage(self, part: _Part, node: Node, restore: OperatorRestore | None) -> Stage:
        index, of = part.subtask.index, part.chain.parallelism
        if isinstance(node.runs, Source):
            reader = node.runs.open(
                SourceContext(
                    uid=str(node.id),
                    subtask=index,
                    parallelism=of,
                    now_ms=self._around.now_ms,
                    folder=self._program.folder,
                    warn=self._around.warn,
                )
            )
            return SourceStage(node, reader, restore)
        if isinstance(node.runs, Sink):
            writer = node.runs.open(self._sink_context(node, part.subtask, of))
            return SinkStage(node, writer, restore, index, of)
        if node.kind in STATELESS:
            return STATELESS[node.kind](node)
        return self._function_stage(part, node, restore)

    def _sink_context(self, node: Node, subtask: SubtaskId, of: int) -> SinkContext:
        mine = SubtaskId(node.id, subtask.index)
        job, attempt, nonce = self._around.job, self._plan.attempt, self._plan.job_nonce
        return SinkContext(
            uid=str(node.id),
            subtask=subtask.index,
            parallelism=of,
            attempt=attempt,
            transaction=lambda n: paths.transaction(job, mine, AttemptNumber(attempt), n, nonce),
            now_ms=self._around.now_ms,
            folder=self._program.folder,
            warn=self._around.warn,
        )

    def _function_stage(
        self, part: _Part, node: Node, restore: OperatorRestore | None
    ) -> ProcessStage:
        begun = begin_function(
            node,
            subtask=part.subtask.index,
            parallelism=part.chain.parallelism,
            now_ms=self._around.now_ms,
            stored=None if restore is None else restore.lists,
        )
        part.lists[node.id] = begun.lists
        if node.key is None:
            return ProcessStage(node, begun.function, begun.context)
        states = self._keyed_states(part, node, restore)
        return KeyedStage(node, begun.function, begun.context, states)

    def _keyed_states(
        self, part: _Part, node: Node, restore: OperatorRestore | None
    ) -> KeyedStates:
        assert node.key is not None
        spec, plan = self._program.manifest.spec, self._plan
        groups = owned_range(
            part.subtask.index,
            parallelism=part.chain.parallelism,
            max_parallelism=plan.max_parallelism,
        )
        backend = open_backend(
            spec, part.folder / "db", groups=groups, max_parallelism=plan.max_parallelism
        )
        if restore is not None and restore.keyed:
            backend.restore(self._local_parts(node.id, part.subtask.index, restore, groups))
        return KeyedStates(
            backend,
            keyed_specs(node),
            groups=groups,
            max_parallelism=plan.max_parallelism,
            capacity=cached_keys_max(spec),
            key_type=node.key.type,
            key_schema=None if restore is None else restore.key_schema,
        )

    def _local_parts(
        self, id: OperatorId, index: int, restore: OperatorRestore, groups: KeyGroupRange
    ) -> Sequence[LocalPart]:
        fetched = self._plan.fetched.get(id, {}).get(index, ())
        found = []
        for source, path in zip(restore.keyed, fetched, strict=True):
            handle = source.handle
            found.append(
                LocalPart(
                    format=KeyedFormat(handle.format),
                    covers=handle.groups,
                    groups=source.groups.intersection(groups),
                    path=Path(path) if path else None,
                    inline=handle.inline,
                    offsets=handle.offsets,
                )
            )
        return found

    # ── wiring ───────────────────────────────────────────────────────────────────────────────────

    def _wire(self, part: _Part, output_of: Callable[[ChannelId], Output]) -> Task:
        exchanges: list[Exchange] = []
        if not self._plan.commit_only:
            for id, stage in part.stages.items():
                downs: dict[str | None, list[Down]] = {None: []}
                for number, edge in enumerate(self._graph.edges):
                    if edge.source == id:
                        target = self._target(part, number, edge, output_of)
                        if isinstance(target, Exchange):
                            exchanges.append(target)
                        downs.setdefault(edge.side, []).append(target)
                if downs[None]:
                    stage.down = fan(downs[None])
                if isinstance(stage, ProcessStage):
                    stage.side_downs = {
                        name: fan(downs.get(name, [_nobody])) for name in stage.side_names
                    }
        return Task(
            Wiring(
                subtask=part.subtask,
                stages=part.stages,
                exchanges=exchanges,
                inputs=part.inputs,
                lists=part.lists,
                carried={
                    id: restore
                    for id in part.stages
                    if (restore := self._plan.restore.get(id, {}).get(part.subtask.index))
                },
                folder=part.folder,
                commit_only=self._plan.commit_only,
            )
        )

    def _target(
        self, part: _Part, number: int, edge: Edge, output_of: Callable[[ChannelId], Output]
    ) -> Down:
        parallelism = self._plan.parallelism
        if is_chained(self._graph, edge, parallelism=parallelism):
            return part.stages[edge.target]
        index = part.subtask.index
        kind = exchange_of(self._graph, edge, parallelism=parallelism)
        if kind is ExchangeKind.FORWARD:
            return Straight([output_of(ChannelId(number, index, index))])
        width = operator_parallelism(self._graph.operator(edge.target), parallelism=parallelism)
        outputs = [output_of(ChannelId(number, index, target)) for target in range(width)]
        if kind is ExchangeKind.HASH:
            node = self._nodes[edge.target]
            return ByKey(outputs, node, max_parallelism=self._plan.max_parallelism)
        return InTurns(outputs, start=index)


def _nobody(values: Sequence[Any]) -> None:
    """Records of a side output that nobody reads."""
