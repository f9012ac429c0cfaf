"""A job's tasks in this process, driven by hand: mailbox and channels, no sockets, no coordinator.

What is measured this way is what one child does, and nothing beside it.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from penstock.core.chains import subtasks_by_worker
from penstock.core.ids import AttemptNumber, ChannelId, CheckpointId, JobId, WorkerId
from penstock.network import frames
from penstock.network.memory import MemoryChannel
from penstock.runtime.assembly import Assembly, Surroundings
from penstock.runtime.mailbox import Mailbox
from penstock.runtime.program import load_program
from penstock.runtime.stages import KeyedStage
from penstock.spec.streamjob import StreamJob

JOBS = Path(__file__).parent / "jobs"
ATTEMPT = AttemptNumber(1)


def manifest(*, records: int, keys: int, backend: str, memory: str = "1Gi") -> StreamJob:
    """The keyed count's StreamJob."""
    return StreamJob.model_validate(
        {
            "apiVersion": "penstock.dev/v1alpha1",
            "kind": "StreamJob",
            "metadata": {"name": "keyed-count"},
            "spec": {
                "entrypoint": "keyed_count:job",
                "parameters": {"records": records, "keys": keys},
                "state": {"backend": backend, "rocksdb": {"memory": memory}},
                "checkpoints": {"interval": "10s"},
            },
        }
    )


class Inside:
    """The keyed count at parallelism 1. `sent` is what the coordinator would be told."""

    def __init__(self, job: StreamJob, folder: Path) -> None:
        written = folder / "streamjob.json"
        written.write_text(json.dumps(job.document()))
        program = load_program(written, JOBS)
        graph = program.graph
        self.sent: list[frames.AnyFrame] = []
        self._channels: dict[ChannelId, MemoryChannel] = {}
        plan = frames.Prepare(
            attempt=ATTEMPT,
            parallelism=1,
            max_parallelism=128,
            placement=(0,),
            subtasks=subtasks_by_worker(graph, placement=(0,))[WorkerId(0)],
            restore={},
            committed=None,
            job_nonce="n",
            graph=graph.to_json(),
        )
        around = Surroundings(JobId("keyed-count"), _now_ms, folder, print, self._channel)
        assembly = Assembly(program, plan, around)
        self._helper = ThreadPoolExecutor(1)
        self.mailbox = Mailbox(
            ATTEMPT,
            assembly.wire(self._channel),
            send=self.sent.append,
            helper=self._helper,
            committed=None,
        )

    def _channel(self, channel: ChannelId) -> MemoryChannel:
        return self._channels.setdefault(channel, MemoryChannel(channel))

    def turns(self) -> Iterator[float]:
        """Turn the mailbox until all input is read; the seconds that each turn took."""
        turn, clock = self.mailbox.turn, time.perf_counter
        told = 0
        finished = 0
        while finished < len(self.mailbox.tasks):
            begun = clock()
            turn(_now_ms())
            yield clock() - begun
            for frame in self.sent[told:]:
                finished += isinstance(frame, frames.Finished)
            told = len(self.sent)

    def run(self) -> None:
        """Turn the mailbox until all input is read."""
        for _ in self.turns():
            pass

    def trigger(self, checkpoint: int) -> None:
        """Begin a checkpoint."""
        self.mailbox.deliver(frames.Trigger(ATTEMPT, CheckpointId(checkpoint), None))

    @property
    def is_snapshotting(self) -> bool:
        """Whether a checkpoint is being written."""
        return any(task.is_snapshotting for task in self.mailbox.tasks)

    @property
    def changed_keys(self) -> int:
        """Keys that are newer than the backend: what a checkpoint begun now must write."""
        stages = (stage for task in self.mailbox.tasks for stage in task.stages.values())
        return sum(s.states.changed_count for s in stages if isinstance(s, KeyedStage))

    def close(self) -> None:
        """Close the tasks."""
        self._helper.shutdown()
        self.mailbox.close()


@contextmanager
def as_in_a_child() -> Iterator[None]:
    """The garbage collector's settings of a child."""
    gc.collect()
    gc.freeze()
    before = gc.get_threshold()
    gc.set_threshold(100_000, 20, 1_000_000)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
