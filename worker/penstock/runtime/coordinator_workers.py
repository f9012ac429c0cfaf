"""The coordinator's side of its workers: control connections, heartbeats, frames to and from events.

Decides nothing: what a worker says becomes an event, what the core wants becomes a frame.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from penstock.checkpoint import effects, events
from penstock.core.chains import chains
from penstock.core.errors import Rejected
from penstock.core.failure import Failure
from penstock.core.graph import JobGraph
from penstock.core.ids import AttemptNumber, OperatorId, SubtaskId, WorkerId
from penstock.core.snapshots import RestorePlan
from penstock.network import frames
from penstock.network.control import FrameStream, accept
from penstock.network.frames import AnyFrame, Heartbeat
from penstock.network.proofs import NONCE_BYTES
from penstock.runtime.logs import get_logger

log = get_logger()

HEARTBEAT_MS = 1000


@dataclass(slots=True)
class _Worker:
    """One connected supervisor. `heard_ms` is when the last frame came, whatever it was."""

    id: WorkerId
    stream: FrameStream
    host: str
    heard_ms: int
    pid: int = 0
    address: tuple[str, int] | None = None
    heartbeat: Heartbeat | None = None
    stuck_in: AttemptNumber | None = None


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """How long a worker may be silent, and its mailbox without progress."""

    heartbeat_timeout_ms: int
    progress_timeout_ms: int


class Workers:
    """The workers of one job.

    `emit` takes events and `heard` heartbeats, both on the loop's thread; `now_ms` never goes back.
    `limits` may change at any time.
    """

    def __init__(
        self,
        *,
        token: bytes,
        limits: WorkerLimits,
        graph: JobGraph,
        emit: Callable[[events.Event], None],
        heard: Callable[[WorkerId, Heartbeat], None],
        now_ms: Callable[[], int],
    ) -> None:
        self.limits = limits
        self._token = token
        self._graph = graph
        self._graph_json = graph.to_json()
        self._emit = emit
        self._heard = heard
        self._now_ms = now_ms
        self._connected: dict[WorkerId, _Worker] = {}
        self._preparing = AttemptNumber(0)
        self._beat_ms = 0

    # ── what people ask ─────────────────────────────────────────────────────────────────────────

    @property
    def connected(self) -> list[WorkerId]:
        """The workers that are registered now, by ordinal."""
        return sorted(self._connected)

    # ── connections ─────────────────────────────────────────────────────────────────────────────

    async def serve(self, host: str, port: int) -> asyncio.Server:
        """Listen for supervisors; port 0 takes any that is free."""
        return await asyncio.start_server(self._serve_one, host, port)

    def close(self) -> None:
        """End all connections."""
        for worker in self._connected.values():
            worker.stream.close()

    def check(self) -> None:
        """Give up workers that were silent too long, and tell of mailboxes that are stuck; let all
        hear that this coordinator lives."""
        now_ms = self._now_ms()
        if now_ms - self._beat_ms >= HEARTBEAT_MS:
            self._beat_ms = now_ms
            self._send(Heartbeat(AttemptNumber(0), 0))
        for worker in list(self._connected.values()):
            silent_ms = now_ms - worker.heard_ms
            if silent_ms > self.limits.heartbeat_timeout_ms:
                worker.stream.close()
                self._leave(worker, f"nothing heard of it for {silent_ms / 1000:.0f} s")
            else:
                self._check_progress(worker)

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            register = await accept(
                reader, writer, self._token, secrets.token_bytes(NONCE_BYTES), refuse=self._refuse
            )
        except Rejected as e:
            log.warning("worker refused", reason=e.what, peer=e.where)
            return
        stream = FrameStream(reader, writer)
        peer = writer.get_extra_info("peername")
        worker = _Worker(
            register.worker, stream, peer[0] if peer else "", self._now_ms(), register.pid
        )
        self._connected[worker.id] = worker
        self._emit(events.WorkerJoined(worker.id, register.copies))
        while (frame := await stream.read()) is not None:
            worker.heard_ms = self._now_ms()
            self._received(worker, frame)
        self._leave(worker, stream.end_reason or "the connection ended")

    def _refuse(self, register: frames.Register) -> frames.Refused | None:
        if register.worker not in self._connected:
            return None
        return frames.Refused(f"worker {register.worker} is connected already", again=True)

    def _leave(self, worker: _Worker, reason: str) -> None:
        if self._connected.get(worker.id) is worker:
            del self._connected[worker.id]
            self._emit(events.WorkerLeft(worker.id, reason))

    def _check_progress(self, worker: _Worker) -> None:
        beat = worker.heartbeat
        if beat is None or beat.attempt == worker.stuck_in:
            return
        if beat.progress_age_ms > self.limits.progress_timeout_ms:
            worker.stuck_in = beat.attempt
            failure = Failure(
                f"worker {worker.id} made no progress for {beat.progress_age_ms / 1000:.0f} s",
                fix="look for a call in the job that does not return; "
                "raise spec.worker.progressTimeout if it may take that long",
            )
            self._emit(events.AttemptFailed(beat.attempt, failure))

    # ── frames become events ────────────────────────────────────────────────────────────────────

    def _received(self, worker: _Worker, frame: AnyFrame) -> None:
        match frame:
            case frames.Heartbeat():
                worker.heartbeat = frame
                self._heard(worker.id, frame)
            case frames.Ready():
                host, port = frame.address
                if frame.attempt == self._preparing:
                    worker.address = (host or worker.host, port)
                self._emit(events.WorkerReady(worker.id, frame.attempt, frame.fetched_bytes))
            case frames.Acked():
                self._emit(
                    events.SubtaskAcked(
                        attempt=frame.attempt,
                        checkpoint=frame.checkpoint,
                        subtask=frame.subtask,
                        parts=frame.parts,
                        files=frame.files,
                        bytes_new=frame.bytes_new,
                    )
                )
            case frames.Declined():
                self._emit(
                    events.SubtaskDeclined(
                        frame.attempt, frame.checkpoint, frame.subtask, frame.reason
                    )
                )
            case frames.Finished():
                self._emit(events.SubtaskFinished(frame.attempt, frame.subtask))
            case frames.Committed():
                self._emit(events.WorkerCommitted(worker.id, frame.attempt, frame.checkpoint))
            case frames.Failed():
                self._emit(events.AttemptFailed(frame.attempt, frame.failure))
            case frames.Said():
                log.log(frame.level, frame.message, worker=worker.id, **frame.fields)
            case _:
                log.warning("unexpected frame", frame=type(frame).__name__, worker=worker.id)

    # ── effects become frames ───────────────────────────────────────────────────────────────────

    def prepare(self, effect: effects.Prepare) -> None:
        """Tell each worker its subtasks of a new attempt, with what those start from."""
        attempt = effect.attempt
        self._preparing = attempt.number
        members = {
            chain.head: chain.operators
            for chain in chains(self._graph, parallelism=attempt.parallelism)
        }
        for worker_id, subtasks in effect.subtasks.items():
            worker = self._connected.get(worker_id)
            if worker is None:
                continue
            worker.address = None
            worker.stream.send(
                frames.Prepare(
                    attempt=attempt.number,
                    parallelism=attempt.parallelism,
                    max_parallelism=attempt.max_parallelism,
                    placement=attempt.placement,
                    subtasks=subtasks,
                    restore=_share(effect.restore, subtasks, members),
                    committed=effect.committed,
                    job_nonce=effect.job_nonce,
                    graph=self._graph_json,
                    commit_only=effect.commit_only,
                )
            )

    def run(self, effect: effects.Run) -> None:
        """Tell all workers the others' addresses, and to go."""
        addresses = {
            int(w.id): w.address for w in self._connected.values() if w.address is not None
        }
        self._send(frames.Run(attempt=effect.attempt, addresses=addresses))

    def trigger(self, effect: effects.Trigger) -> None:
        """Start a checkpoint everywhere."""
        self._send(
            frames.Trigger(
                attempt=effect.attempt,
                checkpoint=effect.checkpoint,
                base=effect.base,
                savepoint=effect.savepoint,
                stop=effect.stop,
                drain=effect.drain,
            )
        )

    def abort(self, effect: effects.Abort) -> None:
        """A checkpoint was given up."""
        self._send(
            frames.Aborted(
                attempt=effect.attempt, checkpoint=effect.checkpoint, reason=effect.reason
            )
        )

    def resume(self, effect: effects.Resume) -> None:
        """A stop failed; go on."""
        self._send(frames.Resume(attempt=effect.attempt, checkpoint=effect.checkpoint))

    def completed(self, effect: effects.NotifyCompleted) -> None:
        """A checkpoint is complete."""
        self._send(
            frames.Completed(
                attempt=effect.attempt, checkpoint=effect.checkpoint, commit=effect.commit
            )
        )

    def cancel(self, effect: effects.CancelWorkers) -> None:
        """End the children of every attempt up to this one."""
        self._send(frames.Cancel(attempt=effect.attempt))

    async def drain(self) -> None:
        """Wait until what was sent has left, or the connection has ended."""
        for worker in list(self._connected.values()):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(worker.stream.drain(), 1.0)

    def _send(self, frame: AnyFrame) -> None:
        for worker in self._connected.values():
            worker.stream.send(frame)


def _share(
    restore: RestorePlan,
    subtasks: tuple[SubtaskId, ...],
    members: dict[OperatorId, tuple[OperatorId, ...]],
) -> RestorePlan:
    """The part of a plan that these subtasks need, chains taken apart."""
    share: RestorePlan = {}
    for subtask in subtasks:
        for operator in members[subtask.operator]:
            if found := restore.get(operator, {}).get(subtask.index):
                share.setdefault(operator, {})[subtask.index] = found
    return share
