"""What the pods of a revision run: the simulated job, in the version that the revision's image names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.simulation.operator.code import INCOMPATIBLE, Code

from penstock.core.graph import JobGraph
from penstock.dataflow.functions import Context, KeyedFunction
from penstock.dataflow.states import ValueState
from penstock.dataflow.stream import Environment
from penstock.runtime.program import Program
from penstock.spec.streamjob import StreamJob, StreamJobSpec
from penstock.testing.simulation import job
from penstock.testing.simulation.job import COUNTS, GRAPH, JOB, Input, Record
from penstock.testing.simulation.outside import Outside
from penstock.testing.simulation.store import SimulatedStore
from penstock.testing.simulation.tasks import LinesReader, OutsideWriter
from penstock.testing.simulation.world import World


class OtherCounts(KeyedFunction):
    """The same counts, kept as another type: none reads what the other wrote."""

    tally = ValueState(list[int], default=None)

    def process(self, record: Record, ctx: Context[int]) -> Iterator[Record]:
        seen, total = self.tally.value or (0, 0)
        self.tally.value = [seen + 1, total + record.offset]
        yield record


@dataclass(frozen=True, slots=True)
class Programs:
    """Makes a program for whichever revision. `speed` is how eagerly sources read."""

    world: World
    store: SimulatedStore
    outside: Outside
    input: Input
    folder: Path
    speed: float

    def of(self, spec: StreamJobSpec) -> Program:
        """As each process of it loads it for itself."""
        code, world = Code(spec.image or ""), self.world
        counts = OtherCounts if code.kind == INCOMPATIBLE else job.Counts
        built: Environment = job.environment(
            lambda ctx: LinesReader(ctx, self.input, world, lambda: self.speed),
            lambda ctx: OutsideWriter(ctx, self.outside, world, lambda: self.store.faults),
            counts,
        )
        return Program(_manifest(spec), self.folder, built, graph_of(code))


def graph_of(code: Code) -> JobGraph:
    """What its author's function builds."""
    return _OTHER_GRAPH if code.kind == INCOMPATIBLE else GRAPH


def schema_of(types: tuple[str, ...]) -> str:
    """The name that `Code.schema` has for the types of a snapshot's keyed state."""
    return INCOMPATIBLE if types == _types(_OTHER_GRAPH) else "common"


def _types(graph: JobGraph) -> tuple[str, ...]:
    return tuple(s.schema for o in graph.operators if o.id == COUNTS for s in o.states)


def _manifest(spec: StreamJobSpec) -> StreamJob:
    return StreamJob.model_validate(
        {
            "apiVersion": "penstock.dev/v1alpha1",
            "kind": "StreamJob",
            "metadata": {"name": JOB},
            "spec": spec.model_dump(mode="json", by_alias=True, exclude_unset=True),
        }
    )


def _unopened(_: object) -> object:
    raise AssertionError("only the graph is looked at")


_unopened_job: Callable[..., Environment] = job.environment
_OTHER_GRAPH = _unopened_job(_unopened, _unopened, OtherCounts).graph()
