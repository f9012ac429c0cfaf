"""The mailbox: one thread runs all subtasks of a worker's attempt, a piece of work at a time.

`turn(now_ms)` over ports, without sockets, clocks or threads of its own: the child drives it with
real ones, `run_job` and the simulator with theirs. What the coordinator says comes in by `deliver`,
what it is told goes out by `send`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Protocol, TypeVar

from msgspec import structs

from penstock.core.errors import Corrupt, PenstockError, Retryable
from penstock.core.ids import AttemptNumber, CheckpointId, OperatorId
from penstock.network import frames
from penstock.network.frames import AnyFrame, OperatorMetrics
from penstock.runtime.endpoints import SinkStage
from penstock.runtime.failures import UserError
from penstock.runtime.task import Task

T = TypeVar("T")

FLUSH_AFTER_MS = 5
"""A batch that is not full leaves after this long."""

HEARTBEAT_MS = 500
_COMMIT_AGAIN_MS = 1000


class Helper(Protocol):
    """Runs what would stop the mailbox: copying state out, committing."""

    def submit(self, fn: Callable[[], T], /) -> Future[T]:
        """Run fn somewhere else, after what was submitted before."""
        ...


class Mailbox:
    """All tasks of one attempt on one worker.

    `committed` is what sinks commit at once of what they restored, None for nothing (a hold).
    `clock_ns` measures how long tasks are at work; nothing is decided by it.
    """

    def __init__(
        self,
        attempt: AttemptNumber,
        tasks: Sequence[Task],
        *,
        send: Callable[[AnyFrame], None],
        helper: Helper,
        committed: CheckpointId | None,
        clock_ns: Callable[[], int] = lambda: 0,
    ) -> None:
        self._attempt = attempt
        self.tasks = tasks
        self._send = send
        self._helper = helper
        self._first = 0
        self._flushed_ms = 0
        self._beat_ms = 0
        self._finished: set[int] = set()
        self._commit_to: CheckpointId | None = committed
        self._committing: Future[None] | None = None
        self._committing_to = CheckpointId(0)
        self._clock_ns = clock_ns
        self._busy_ns = [0] * len(tasks)
        self._commit_from_ms = 0

    def turn(self, now_ms: int) -> bool:
        """Give each task a piece of work; whether there was any."""
        worked = False
        count = len(self.tasks)
        for i in range(count):
            # Each turn begins with another task, so that none is always served last.
            task = self.tasks[(self._first + i) % count]
            try:
                worked |= task.step()
                worked |= task.write_slice(self._helper.submit)
            except UserError as e:
                # A key function fails in the chain before its operator's: there it has no subtask.
                e.subtask = task.subtask.index if e.node.id in task.stages else None
                raise
            self._report(task)
        self._first = (self._first + 1) % count if count else 0
        if not worked or now_ms - self._flushed_ms >= FLUSH_AFTER_MS:
            self._flushed_ms = now_ms
            for task in self.tasks:
                if task.is_waiting:
                    task.flush()
                    worked = True
        self._commit(now_ms)
        if now_ms - self._beat_ms >= HEARTBEAT_MS:
            self._beat_ms = now_ms
            self._send(frames.Heartbeat(self._attempt, 0, self.metrics()))
        return worked

    @property
    def is_busy_elsewhere(self) -> bool:
        """Whether something runs on the helper whose end should be noticed soon."""
        return self._committing is not None or any(t.is_snapshotting for t in self.tasks)

    def deliver(self, frame: AnyFrame) -> None:
        """Something the coordinator said; what is about another attempt is left alone."""
        match frame:
            case frames.Trigger(attempt=self._attempt, checkpoint=checkpoint):
                for task in self.tasks:
                    task.trigger(checkpoint, stop=frame.stop)
            case frames.Aborted(attempt=self._attempt, checkpoint=checkpoint):
                for task in self.tasks:
                    task.abort(checkpoint)
            case frames.Resume(attempt=self._attempt, checkpoint=checkpoint):
                for task in self.tasks:
                    task.resume(checkpoint)
            case frames.Completed(attempt=self._attempt, checkpoint=checkpoint, commit=True):
                self._commit_to = max(checkpoint, self._commit_to or checkpoint)
            case _:
                pass

    def metrics(self) -> dict[str, OperatorMetrics]:
        """Totals by `operator/subtask`; the time at work of a whole chain is its head's."""
        found = {}
        for task, busy_ns in zip(self.tasks, self._busy_ns, strict=True):
            for id, stage in task.stages.items():
                found[f"{id}/{task.subtask.index}"] = stage.metrics()
            head = str(task.subtask)
            if head in found:  # It is not where only sinks are, to commit.
                found[head] = structs.replace(found[head], busy_ms=busy_ns // 1_000_000)
        return found

    def close(self) -> None:
        """Close every task."""
        for task in self.tasks:
            task.close()

    def _report(self, task: Task) -> None:
        try:
            done = task.snapshotted()
        except PenstockError as e:
            self._decline(task, e)
            return
        if done is not None:
            self._send(
                frames.Snapshotted(
                    attempt=self._attempt,
                    checkpoint=done.checkpoint,
                    subtask=task.subtask,
                    parts=done.parts,
                    copies=_copies(done.keyed_operator, done.keyed),
                )
            )
        if task.has_finished and id(task) not in self._finished:
            self._finished.add(id(task))
            self._send(frames.Heartbeat(self._attempt, 0, self.metrics()))
            self._send(frames.Finished(self._attempt, task.subtask))

    def _decline(self, task: Task, error: PenstockError) -> None:
        checkpoint = task.last_checkpoint
        self._send(frames.Declined(self._attempt, checkpoint, task.subtask, str(error)))

    def _commit(self, now_ms: int) -> None:
        if self._committing is not None:
            if not self._committing.done():
                return
            error = self._committing.exception()
            finished, self._committing = self._committing, None
            if isinstance(error, Retryable):
                self._commit_from_ms = now_ms + _COMMIT_AGAIN_MS
                self._commit_to = max(self._commit_to or self._committing_to, self._committing_to)
                return
            finished.result()
            self._send(frames.Committed(self._attempt, self._committing_to))
        if self._commit_to is not None and now_ms >= self._commit_from_ms:
            self._committing_to, self._commit_to = self._commit_to, None
            sinks = [sink for task in self.tasks for sink in task.sinks]
            commit = partial(commit_all, sinks, self._committing_to)
            self._committing = self._helper.submit(commit)


def commit_all(sinks: Sequence[SinkStage], checkpoint: CheckpointId) -> None:
    """What one sink cannot commit keeps no other from it; what can be tried again is raised first."""
    failed: list[Retryable | Corrupt] = []
    for sink in sinks:
        try:
            sink.commit(checkpoint)
        except (Retryable, Corrupt) as e:
            failed.append(e)
    for error in sorted(failed, key=lambda e: isinstance(e, Corrupt)):
        raise error


def _copies(operator: OperatorId | None, copied: Any) -> dict[OperatorId, str]:
    return {} if operator is None or copied is None else {operator: str(copied.path)}
