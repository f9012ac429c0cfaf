"""A simulated worker: a supervisor that outlives attempts, with at most one child."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from penstock.checkpoint import effects as do
from penstock.checkpoint import events as told
from penstock.checkpoint.log import Get, StoreAnswer, Unknown
from penstock.core import paths
from penstock.core.chains import chains
from penstock.core.failure import Failure
from penstock.core.handles import FileHandle, KeyedFormat, KeyedHandle, SubtaskSnapshot
from penstock.core.ids import AttemptNumber, CheckpointId, OperatorId, SubtaskId, WorkerId
from penstock.core.snapshots import KeyedSource, OperatorPart
from penstock.testing.simulation import job
from penstock.testing.simulation.job import COUNTS, GRAPH, JOB, LINES, SINKS, Groups
from penstock.testing.simulation.outside import Transaction
from penstock.testing.simulation.store import RETRY_MS, SAVEPOINTS, Delete, Put
from penstock.testing.simulation.tasks import Frozen, Task

if TYPE_CHECKING:
    from penstock.testing.simulation.simulation import Simulation


@dataclass(slots=True)
class Base:
    """What a subtask uploaded for a checkpoint, by key group: an upload may build on it."""

    checkpoint: CheckpointId
    handles: dict[int, FileHandle] = field(default_factory=dict)
    contents: dict[int, bytes] = field(default_factory=dict)


class Child:
    """The execution of one attempt on one worker."""

    def __init__(self, worker: Worker, prepare: do.Prepare) -> None:
        self.attempt = prepare.attempt.number
        self.is_alive = True
        self.tasks: dict[SubtaskId, Task] = {}
        self._worker = worker
        self._sim = worker.sim
        self._prepare = prepare
        self._triggers: dict[CheckpointId, do.Trigger] = {}
        self._waiting: dict[CheckpointId, list[tuple[Task, Frozen]]] = {}
        self._uploaded: dict[SubtaskId, dict[CheckpointId, Base]] = {}
        self._confirmed: CheckpointId | None = None
        self._commit_up_to = CheckpointId(0)
        self._restoring = 0
        self._is_running = False
        by_head = {c.head: c for c in chains(GRAPH, parallelism=prepare.attempt.parallelism)}
        for subtask in prepare.subtasks[worker.id]:
            self.tasks[subtask] = Task(
                by_head[subtask.operator],
                subtask.index,
                parallelism=prepare.attempt.parallelism,
                world=self._sim.world,
                channel=lambda name: self._sim.channel(self.attempt, name),
                snapshot=self._snapshot,
                finished=self._finished,
            )
        self._restore()

    def die(self) -> None:
        """End at once; what it asked the world outside to do still happens."""
        self.is_alive = False
        self._sim.close_channels(self.attempt, self.tasks)

    def fail(self, what: str) -> None:
        """Break, and tell."""
        if self.is_alive:
            self.die()
            self._worker.tell(told.AttemptFailed(self.attempt, Failure(what)))

    # ── restore ─────────────────────────────────────────────────────────────────────────────────

    def _restore(self) -> None:
        self._restoring = 1
        for task in self.tasks.values():
            restored = {
                uid: self._prepare.restore[uid][task.subtask.index]
                for uid in task.chain.operators
                if uid in self._prepare.restore
            }
            groups: Groups = {}
            task.restore(restored, groups)
            if self._prepare.attempt.restored_from is None:
                task.begin(self._sim.input)
            for part in restored.values():
                for source in part.keyed:
                    self._fetch(source, groups)
        self._restored_one()

    def _fetch(self, source: KeyedSource, groups: Groups) -> None:
        for file in source.handle.files:
            if file.shared and int(file.local_name or 0) not in source.groups:
                continue
            path = file.path if "://" in file.path else source.folder + file.path
            self._restoring += 1
            self._get(path, partial(self._fetched, source, groups))

    def _get(self, path: str, done: Callable[[bytes | None], None]) -> None:
        def reply(answer: StoreAnswer) -> None:
            if not self.is_alive:
                return
            if isinstance(answer, Unknown):
                self._sim.world.after(RETRY_MS, lambda: self._get(path, done))
            else:
                assert answer is None or isinstance(answer, bytes), answer
                done(answer)

        self._sim.store.request(Get(path), reply)

    def _fetched(self, source: KeyedSource, groups: Groups, data: bytes | None) -> None:
        if data is None:
            self.fail("a file of the snapshot is missing")
            return
        for group, keys in job.decode_groups(data).items():
            if group in source.groups:
                groups[group] = keys
        self._restored_one()

    def _restored_one(self) -> None:
        self._restoring -= 1
        if self._restoring:
            return
        if not self._prepare.commit_only:
            self._abort_strangers()
            self._worker.tell(told.WorkerReady(self._worker.id, self.attempt))
        if self._prepare.committed is not None:
            self._commit(self._prepare.committed)

    def _abort_strangers(self) -> None:
        named = {
            name
            for uid in SINKS
            for part in self._prepare.restore.get(uid, {}).values()
            for name, _ in map(job.decode_pending, part.lists.get(job.PENDING.name, ()))
        }
        for task in self.tasks.values():
            for uid in task.sinks:
                self._sim.outside.abort_others(uid, attempt=self.attempt, named=named)

    # ── running ─────────────────────────────────────────────────────────────────────────────────

    def run(self) -> None:
        """Begin to turn."""
        if not self._is_running:
            self._is_running = True
            self._turn()

    def _turn(self) -> None:
        if not self.is_alive:
            return
        for task in self.tasks.values():
            task.turn(self._sim.input, self._sim.speed)
        self._sim.world.after(self._sim.world.rng.randrange(10, 60), self._turn)

    def _finished(self, task: Task) -> None:
        self._worker.tell(told.SubtaskFinished(self.attempt, task.subtask))

    def on_trigger(self, trigger: do.Trigger) -> None:
        """A checkpoint starts; what its barriers already froze is uploaded now."""
        if trigger.checkpoint in self._triggers:
            return
        self._triggers[trigger.checkpoint] = trigger
        for task, frozen in self._waiting.pop(trigger.checkpoint, []):
            self._upload(task, frozen, trigger)
        for task in self.tasks.values():
            task.trigger(trigger)

    def on_completed(self, completed: do.NotifyCompleted) -> None:
        """A checkpoint is complete."""
        self._confirmed = max(completed.checkpoint, self._confirmed or completed.checkpoint)
        if completed.commit:
            self._commit(completed.checkpoint)

    def _commit(self, up_to: CheckpointId) -> None:
        self._commit_up_to = max(self._commit_up_to, up_to)
        for task in self.tasks.values():
            for sink in task.sinks.values():
                for name, checkpoint in list(sink.pending.items()):
                    if checkpoint <= up_to:
                        self._sim.outside.commit(name, partial(self._committed, sink.pending, name))
        self._report_committed()

    def _committed(self, pending: dict[str, CheckpointId], name: str) -> None:
        if self.is_alive and pending.pop(name, None) is not None:
            self._report_committed()

    def _report_committed(self) -> None:
        left = [
            checkpoint
            for task in self.tasks.values()
            for sink in task.sinks.values()
            for checkpoint in sink.pending.values()
            if checkpoint <= self._commit_up_to
        ]
        if not left:
            self._worker.tell(
                told.WorkerCommitted(self._worker.id, self.attempt, self._commit_up_to)
            )

    # ── snapshots ───────────────────────────────────────────────────────────────────────────────

    def _snapshot(self, task: Task, checkpoint: CheckpointId) -> None:
        for uid, sink in task.sinks.items():
            if sink.open:
                name = paths.transaction(
                    JOB,
                    SubtaskId(uid, task.subtask.index),
                    self.attempt,
                    checkpoint,
                    self._prepare.job_nonce,
                )
                self._sim.outside.precommit(
                    Transaction(name, uid, self.attempt, checkpoint, tuple(sink.open))
                )
                sink.pending[name] = checkpoint
                sink.open = []
        frozen = task.freeze(checkpoint)
        trigger = self._triggers.get(checkpoint)
        if trigger is None:
            self._waiting.setdefault(checkpoint, []).append((task, frozen))
        else:
            self._upload(task, frozen, trigger)

    def _upload(self, task: Task, frozen: Frozen, trigger: do.Trigger) -> None:
        sim = self._sim
        files: dict[str, bytes] = {}
        keyed = None
        if COUNTS in task.chain.operators:
            keyed = self._keyed(task, frozen, trigger, files)
        parts: dict[OperatorId, OperatorPart] = {}
        for uid in task.chain.operators:
            if uid == LINES:
                snapshot = SubtaskSnapshot(lists={job.OFFSETS.name: frozen.offsets})
                parts[uid] = OperatorPart(snapshot, (job.OFFSETS,))
            elif uid == COUNTS:
                parts[uid] = OperatorPart(SubtaskSnapshot(keyed=keyed), (job.COUNT,), "int")
            else:
                items = tuple(
                    job.encode_pending(name, n) for name, n in sorted(frozen.pending[uid].items())
                )
                snapshot = SubtaskSnapshot(lists={job.PENDING.name: items})
                parts[uid] = OperatorPart(snapshot, (job.PENDING,))
        root = SAVEPOINTS + "/" if trigger.savepoint else ""
        ack = told.SubtaskAcked(
            self.attempt,
            frozen.checkpoint,
            task.subtask,
            parts,
            files=tuple(path.removeprefix(root) for path in files),
            bytes_new=sum(map(len, files.values())),
        )
        if sim.world.chance(sim.declines):
            some = tuple(files)[: sim.world.rng.randrange(len(files) + 1)]
            self._put_all({p: files[p] for p in some}, lambda: self._decline(ack, some))
        else:
            self._put_all(files, lambda: self._worker.tell(ack))

    def _keyed(
        self, task: Task, frozen: Frozen, trigger: do.Trigger, files: dict[str, bytes]
    ) -> KeyedHandle:
        sim, n = self._sim, frozen.checkpoint
        if trigger.savepoint or sim.world.chance(0.2):
            data = job.encode_groups(frozen.groups)
            if trigger.savepoint:
                path = SAVEPOINTS + "/" + trigger.savepoint
                path += (
                    f"{self.attempt}-{n}-{task.subtask.operator}-{task.subtask.index}-{sim.uuid()}"
                )
                name = path.rpartition("/")[2]
            else:
                path = paths.private_file(JOB, self.attempt, n, task.subtask, sim.uuid())
                name = paths.relative_to_job(JOB, path)
            files[path] = data
            handle = FileHandle(name, len(data), zlib.crc32(data))
            return KeyedHandle(KeyedFormat.CANONICAL, task.owned, (handle,))
        mine = self._uploaded.setdefault(task.subtask, {})
        old = Base(n)
        if trigger.base is not None and trigger.base == self._confirmed:
            old = mine.get(trigger.base, old)
        new = mine[n] = Base(n)
        for group, keys in frozen.groups.items():
            data = job.encode_groups({group: keys})
            new.contents[group] = data
            if old.contents.get(group) == data:
                new.handles[group] = old.handles[group]
            else:
                path = paths.shared_file(JOB, self.attempt, n, sim.uuid())
                files[path] = data
                new.handles[group] = FileHandle(
                    paths.relative_to_job(JOB, path),
                    len(data),
                    zlib.crc32(data),
                    shared=True,
                    local_name=str(group),
                )
        return KeyedHandle(KeyedFormat.ROCKSDB, task.owned, tuple(new.handles.values()))

    def _put_all(self, files: dict[str, bytes], done: Callable[[], None]) -> None:
        left = dict(files)

        def put(path: str) -> None:
            self._sim.store.request(Put(path, left[path]), lambda a: reply(path, a))

        def reply(path: str, answer: StoreAnswer) -> None:
            if not self.is_alive:
                return
            if isinstance(answer, Unknown):
                put(path)
            elif left.pop(path, None) is not None and not left:
                done()

        for path in files:
            put(path)
        if not files:
            self._sim.world.soon(lambda: done() if self.is_alive else None, at_most_ms=50)

    def _decline(self, ack: told.SubtaskAcked, uploaded: tuple[str, ...]) -> None:
        self._sim.store.request(Delete(uploaded), lambda _: None)
        declined = told.SubtaskDeclined(
            self.attempt, ack.checkpoint, ack.subtask, "the disk is full"
        )
        self._worker.tell(declined)


class Worker:
    """A supervisor: holds the connection, prepares and cancels children."""

    def __init__(self, sim: Simulation, id: WorkerId) -> None:
        self.sim = sim
        self.id = id
        self.child: Child | None = None
        self.copies: tuple[str, ...] = ()
        self.tell: Callable[[told.Event], None] = lambda _: None

    def crash(self) -> None:
        """Child and all; it comes back without anything."""
        if self.child is not None:
            self.child.die()
        self.child = None
        self.copies = ()

    def on_control(self, message: object) -> None:
        """An order of the coordinator's."""
        child = self.child
        match message:
            case do.Prepare() if self.id in message.subtasks:
                self._prepare(message)
            case do.CancelWorkers(attempt):
                self._cancel(attempt)
            case do.Run(attempt) if child and child.is_alive and child.attempt == attempt:
                child.run()
            case do.Trigger(attempt) if child and child.is_alive and child.attempt == attempt:
                child.on_trigger(message)
            case do.Abort(attempt, n) if child and child.is_alive and child.attempt == attempt:
                for task in child.tasks.values():
                    task.abort(n)
            case do.Resume(attempt, n) if child and child.is_alive and child.attempt == attempt:
                for task in child.tasks.values():
                    task.resume(n)
            case do.NotifyCompleted(attempt, n) if (
                child and child.is_alive and child.attempt == attempt
            ):
                child.on_completed(message)
                self.copies = (paths.checkpoint_metadata(JOB, n),)
            case _:
                pass  # of an attempt that is over here

    def _prepare(self, prepare: do.Prepare) -> None:
        attempt = prepare.attempt.number
        if self.child is not None and self.child.is_alive and self.child.attempt >= attempt:
            if self.child.attempt > attempt:
                self.tell(told.AttemptFailed(attempt, Failure("a later attempt runs here")))
            return
        if self.child is not None:
            self.child.die()
        self.child = Child(self, prepare)

    def _cancel(self, attempt: AttemptNumber) -> None:
        if self.child is not None and self.child.attempt <= attempt:
            self.child.die()
            self.child = None
