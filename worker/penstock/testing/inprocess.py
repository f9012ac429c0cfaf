"""A job's coordinator and workers in one thread: the pure core, the real mailboxes, memory between.

What crashes and what is read is decided by the test, time passes a millisecond a turn, and what a
run would do on other threads is done at once: the same test runs the same way every time.
"""

from __future__ import annotations

import tempfile
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from penstock.checkpoint import effects as do
from penstock.checkpoint import events as told
from penstock.checkpoint import log, recovery
from penstock.checkpoint.coordinator import JobCoordinator
from penstock.checkpoint.phases import Phase
from penstock.checkpoint.settings import CheckpointSettings, FixedDelay, Identity
from penstock.connectors import collect
from penstock.core.errors import Rejected
from penstock.core.ids import AttemptNumber, ChannelId, CheckpointId, JobId, WorkerId
from penstock.core.log import EndKind, Entry
from penstock.dataflow.connector import Sink, Source
from penstock.dataflow.stream import Environment
from penstock.network import frames
from penstock.network.frames import AnyFrame
from penstock.network.memory import MemoryChannel
from penstock.runtime.assembly import Assembly, Surroundings
from penstock.runtime.failures import UserError, with_place
from penstock.runtime.job_storage import JobStorage, put_manifest
from penstock.runtime.mailbox import Mailbox
from penstock.runtime.program import Program
from penstock.runtime.transfers import Upload, Uploader, bring
from penstock.spec.streamjob import StreamJob
from penstock.storage.memory import MemoryStore
from penstock.testing.lists import Listed, Pace, Paced

T = TypeVar("T")

_JOB_NAME = "test"
_CHECKPOINT_INTERVAL_MS = 7
_IDLE_TURNS_MAX = 50_000

_runs = 0


class _AtOnce:
    """A helper that works when it is asked."""

    def submit(self, fn: Callable[[], T], /) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(fn())
        except Exception as e:  # noqa: BLE001  it is the future's to tell
            future.set_exception(e)
        return future


class InProcessJob:
    """One run of one job; see the module. `build` is the author's `job`, its arguments bound."""

    def __init__(
        self,
        build: Callable[[Environment], None],
        *,
        sources: Mapping[str, Sequence[Any]],
        parallelism: int,
        crash_after: Sequence[int],
    ) -> None:
        global _runs
        _runs += 1
        if any(n < 1 for n in crash_after):
            raise Rejected(
                f"crash_after={list(crash_after)} has a number below 1", where="testing.run_job"
            )
        self._build = build
        self._sources = sources
        self._parallelism = parallelism
        self._pace = Pace(sum(map(len, sources.values())), crash_after)
        self._job = JobId(f"{_JOB_NAME}-{_runs}")
        self._now_ms = 0
        self._folder = tempfile.TemporaryDirectory(prefix="penstock-run-job-")
        self._storage = JobStorage(
            self._job,
            MemoryStore(self._clock, url="memory://checkpoints"),
            MemoryStore(self._clock, url="memory://savepoints"),
            Path.cwd(),
        )
        self._program = self._loaded()
        self._coordinator = JobCoordinator(
            Identity(
                self._job,
                owner="test",
                revision="1",
                incarnation="1",
                savepoints_url=self._storage.savepoints.url,
            ),
            self._program.graph,
            CheckpointSettings(interval_ms=_CHECKPOINT_INTERVAL_MS, restart=FixedDelay(delay_ms=0)),
        )
        self._events: deque[told.Event] = deque()
        self._channels: dict[ChannelId, MemoryChannel] = {}
        self._assemblies: dict[WorkerId, Assembly] = {}
        self._mailboxes: dict[WorkerId, Mailbox] = {}
        self._plan: frames.Prepare | None = None
        self._uploader: Uploader | None = None
        self._triggers: dict[CheckpointId, frames.Trigger] = {}
        self._over: Entry | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
        /,
    ) -> None:
        self._end_attempt()
        collect.forget(self._job)
        self._folder.cleanup()

    def run(self) -> dict[str, list[Any]]:
        """Run to the end; what each sink has committed, by uid.

        Raises:
            Rejected: the job cannot run or does not end, or a crash never came.
            Exception: whatever the author's code raised.
        """
        self._execute(self._coordinator.start())
        self._join()
        self._events.append(
            told.StartOrdered("run", after=0, revision="1", parallelism=self._parallelism)
        )
        idle, read = 0, 0
        while self._over is None:
            self._now_ms += 1
            self._tell(told.Tick(self._now_ms))
            self._turn()
            idle, read = (idle + 1, read) if read == self._pace.read else (0, self._pace.read)
            if idle > _IDLE_TURNS_MAX:
                raise Rejected(
                    "the job does not end: its sources give nothing more and do not end",
                    where="testing.run_job",
                    fix="give the records of every source without an end: sources={uid: [...]}",
                )
        return self._committed(self._over)

    def _committed(self, over: Entry) -> dict[str, list[Any]]:
        assert over.end is not None, over
        if over.end.kind is not EndKind.FINISHED:
            raise Rejected(f"the job {over.end.kind}: {over.end.reason}", where="testing.run_job")
        if self._pace.crashes_left:
            raise Rejected(
                f"crash_after={list(self._pace.crashes_left)} never came: {self._pace.read} records "
                "were read in all",
                where="testing.run_job",
                fix="crash after fewer records, so that the test tests it",
            )
        return {
            str(node.id): collect.committed(self._job, str(node.id))
            for node in self._program.environment.nodes()
            if isinstance(node.runs, Sink)
        }

    # ── the job ──────────────────────────────────────────────────────────────────────────────────

    def _loaded(self) -> Program:
        """The job as one process has it, with the test's sources and sinks."""
        environment = Environment(_JOB_NAME)
        self._build(environment)
        left = set(self._sources)
        for node in environment.nodes():
            uid = str(node.id)
            if isinstance(node.runs, Source):
                source = node.runs
                if uid in left:
                    left.discard(uid)
                    records = self._sources[uid]
                    source = Listed(uid, records, replayable=source.replayable)
                node.runs = Paced(source, self._pace)
            elif isinstance(node.runs, Sink):
                node.runs = collect.Collect()
        if left:
            known = [str(n.id) for n in environment.nodes() if isinstance(n.runs, Source)]
            raise Rejected(
                f"the job has no source {', '.join(sorted(left))}",
                where="testing.run_job",
                fix=f"its sources are: {', '.join(known)}",
            )
        manifest = StreamJob.model_validate(
            {
                "apiVersion": "penstock.dev/v1alpha1",
                "kind": "StreamJob",
                "metadata": {"name": _JOB_NAME},
                "spec": {
                    "entrypoint": "test:job",
                    "parallelism": self._parallelism,
                    "state": {"backend": "FileSystem"},
                },
            }
        )
        return Program(manifest, Path.cwd(), environment, environment.graph())

    # ── the coordinator ──────────────────────────────────────────────────────────────────────────

    def _clock(self) -> int:
        return self._now_ms

    def _tell(self, event: told.Event) -> None:
        self._events.append(event)
        while self._events:
            self._execute(self._coordinator.handle(self._events.popleft()))

    def _execute(self, effects: Sequence[do.Effect]) -> None:
        for effect in effects:
            self._execute_one(effect)

    def _execute_one(self, effect: do.Effect) -> None:
        storage, emit = self._storage, self._events.append
        match effect:
            case do.ReadLog():
                emit(storage.run(recovery.read_job(self._job)))
            case do.Append(entry):
                outcome = storage.run(log.append(self._job, entry))
                assert isinstance(outcome, log.Won), outcome
                emit(told.EntryWon(entry))
            case do.WriteManifest(path, manifest):
                digest = put_manifest(storage.checkpoints, path, manifest)
                assert digest is not None, path
                emit(told.ManifestWritten(manifest.checkpoint, digest))
            case do.DeleteSnapshot(snapshot, files):
                storage.checkpoints.delete(files)
                emit(told.SnapshotDeleted(snapshot))
            case do.DeleteFiles(files):
                storage.checkpoints.delete(files)
            case do.Prepare():
                self._prepare(effect)
            case do.Run():
                self._wire()
            case do.CancelWorkers():
                self._end_attempt()
            case do.Trigger(attempt, checkpoint, base):
                frame = frames.Trigger(attempt, checkpoint, base)
                self._triggers[checkpoint] = frame
                self._deliver(frame)
            case do.Abort(attempt, checkpoint, reason):
                self._deliver(frames.Aborted(attempt, checkpoint, reason))
            case do.NotifyCompleted(attempt, checkpoint, commit):
                self._deliver(frames.Completed(attempt, checkpoint, commit))
            case do.Answer(ok=False, detail=detail) | do.Tell(
                "checkpoint failed" | "refused" | "damaged", detail
            ):
                raise Rejected(f"the job cannot run: {detail}", where="testing.run_job")
            case do.JobOver(entry):
                self._over = entry
            case do.Answer() | do.Tell():
                pass
            case _:
                raise AssertionError(effect)

    # ── the workers ──────────────────────────────────────────────────────────────────────────────

    def _join(self) -> None:
        for worker in range(self._parallelism):
            self._events.append(told.WorkerJoined(WorkerId(worker)))

    def _turn(self) -> None:
        for mailbox in list(self._mailboxes.values()):
            try:
                mailbox.turn(self._now_ms)
            except UserError as e:
                raise with_place(e) from None
            if self._pace.is_crash_due and self._coordinator.phase is Phase.RUNNING:
                self._crash()
                return

    def _crash(self) -> None:
        """All workers die at once: what they had not told is lost."""
        self._pace.crashed()
        self._end_attempt()
        self._events.clear()
        for worker in range(self._parallelism):
            self._events.append(told.WorkerLeft(WorkerId(worker), "the test let it crash"))
        self._join()

    def _end_attempt(self) -> None:
        for mailbox in self._mailboxes.values():
            mailbox.close()
        self._mailboxes.clear()
        self._assemblies.clear()
        self._channels.clear()
        self._triggers.clear()

    def _prepare(self, effect: do.Prepare) -> None:
        attempt = effect.attempt
        folder = Path(self._folder.name) / f"attempt-{attempt.number}"
        self._uploader = Uploader(
            self._storage,
            attempt.number,
            max_parallelism=attempt.max_parallelism,
            is_incremental=False,
            keeps_in_manifest=False,
        )
        brought = bring(self._storage, None, effect.restore, folder / "fetched")
        for worker, subtasks in effect.subtasks.items():
            plan = self._plan = frames.Prepare(
                attempt=attempt.number,
                parallelism=attempt.parallelism,
                max_parallelism=attempt.max_parallelism,
                placement=attempt.placement,
                subtasks=subtasks,
                restore=effect.restore,
                committed=effect.committed,
                job_nonce=effect.job_nonce,
                graph=self._program.graph.to_json(),
                commit_only=effect.commit_only,
                fetched=brought.paths,
            )
            around = Surroundings(
                job=self._job,
                now_ms=self._clock,
                work_folder=folder / str(worker),
                warn=warnings.warn,
                input_of=self._channel,
            )
            # Each worker is a process of its own elsewhere: it calls job() for itself.
            try:
                self._assemblies[worker] = Assembly(self._loaded(), plan, around)
            except UserError as e:
                raise with_place(e) from None
            self._events.append(told.WorkerReady(worker, attempt.number))
        if effect.commit_only:
            self._wire()

    def _wire(self) -> None:
        assert self._plan is not None, "Run before Prepare"
        for worker, assembly in self._assemblies.items():
            self._mailboxes[worker] = Mailbox(
                self._plan.attempt,
                assembly.wire(self._channel),
                send=self._sender(worker, self._plan.attempt),
                helper=_AtOnce(),
                committed=self._plan.committed,
            )

    def _channel(self, id: ChannelId) -> MemoryChannel:
        return self._channels.setdefault(id, MemoryChannel(id))

    def _deliver(self, frame: AnyFrame) -> None:
        for mailbox in self._mailboxes.values():
            mailbox.deliver(frame)

    def _sender(self, worker: WorkerId, attempt: AttemptNumber) -> Callable[[AnyFrame], None]:
        emit = self._events.append

        def send(frame: AnyFrame) -> None:
            match frame:
                case frames.Snapshotted():
                    self._upload(frame)
                case frames.Declined(checkpoint=checkpoint, subtask=subtask, reason=reason):
                    emit(told.SubtaskDeclined(attempt, checkpoint, subtask, reason))
                case frames.Finished(subtask=subtask):
                    emit(told.SubtaskFinished(attempt, subtask))
                case frames.Committed(checkpoint=checkpoint):
                    emit(told.WorkerCommitted(worker, attempt, checkpoint))
                case _:
                    pass  # figures for people

        return send

    def _upload(self, frame: frames.Snapshotted) -> None:
        trigger = self._triggers.get(frame.checkpoint)
        assert self._uploader is not None, frame
        assert trigger is not None, frame
        acked = self._uploader.run(Upload(frame, trigger))
        for copy in frame.copies.values():
            Path(copy).unlink()
        self._events.append(
            told.SubtaskAcked(
                attempt=acked.attempt,
                checkpoint=acked.checkpoint,
                subtask=acked.subtask,
                parts=acked.parts,
                files=acked.files,
                bytes_new=acked.bytes_new,
            )
        )
