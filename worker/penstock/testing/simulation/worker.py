"""A simulated worker: a supervisor that outlives attempts, with at most one child.

The child is the production mailbox over a memory network, turned by fake time.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from penstock.checkpoint import effects as do
from penstock.checkpoint import events as told
from penstock.checkpoint.log import Get, StoreAnswer, Unknown
from penstock.core import paths
from penstock.core.chains import Chain, chains
from penstock.core.failure import Failure
from penstock.core.handles import FileHandle, KeyedFormat, KeyedHandle
from penstock.core.ids import (
    AttemptNumber,
    ChannelId,
    CheckpointId,
    OperatorId,
    SubtaskId,
    WorkerId,
)
from penstock.core.keygroups import KeyGroupRange
from penstock.core.snapshots import KeyedSource, OperatorRestore
from penstock.network import frames
from penstock.network.frames import AnyFrame
from penstock.runtime.assembly import Assembly, Surroundings
from penstock.runtime.mailbox import Mailbox
from penstock.runtime.pairing import Pairing
from penstock.runtime.program import Program
from penstock.state import canonical
from penstock.state.backend import LocalPart
from penstock.testing.simulation import job
from penstock.testing.simulation.job import JOB, MAX_PARALLELISM, Rows
from penstock.testing.simulation.store import RETRY_MS, SAVEPOINTS, Delete, Put, SimulatedStore
from penstock.testing.simulation.tasks import Channel, Helper
from penstock.testing.simulation.world import World


class Around(Protocol):
    """What a worker needs of the simulation that it is part of."""

    world: World
    store: SimulatedStore
    folder: Path
    declines: float
    """Share of snapshots that a worker cannot take."""
    turns_ms: tuple[int, int]
    """How long it is from some turns of a mailbox to the next, from and to."""

    def uuid(self) -> str:
        """Never the same twice."""
        ...

    def program(self) -> Program:
        """The job as one child has it; each calls it for itself."""
        ...

    def channel(self, attempt: AttemptNumber, name: ChannelId) -> Channel:
        """One channel of an attempt, the same for both its ends."""
        ...

    def close_channels(self, attempt: AttemptNumber, subtasks: dict[SubtaskId, Chain]) -> None:
        """A child died: its channels are lost."""
        ...


@dataclass(slots=True)
class Base:
    """What a subtask uploaded for a checkpoint, by key group: an upload may build on it."""

    checkpoint: CheckpointId
    handles: dict[int, FileHandle] = field(default_factory=dict)
    contents: dict[int, bytes] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Upload:
    """A subtask's files on their way: `left` are not known to be there yet, `stored` are."""

    checkpoint: CheckpointId
    left: set[str]
    stored: list[str] = field(default_factory=list)
    is_aborted: bool = False


class Child:
    """The execution of one attempt on one worker: the production mailbox, and its surroundings.

    The supervisor's part is here too: files down before it starts, snapshots up while it runs.
    """

    def __init__(self, worker: Worker, prepare: do.Prepare) -> None:
        self.attempt = prepare.attempt.number
        self.is_alive = True
        self._worker = worker
        self._sim = worker.sim
        self._prepare = prepare
        self._program = self._sim.program()
        graph = self._program.graph
        by_head = {c.head: c for c in chains(graph, parallelism=prepare.attempt.parallelism)}
        self.chains = {s: by_head[s.operator] for s in prepare.subtasks[worker.id]}
        self._mailbox: Mailbox | None = None
        self._assembly: Assembly | None = None
        self._pairing = Pairing()
        self._triggered: set[CheckpointId] = set()
        self._uploads: list[Upload] = []
        self._uploaded: dict[SubtaskId, dict[CheckpointId, Base]] = {}
        self._confirmed: CheckpointId | None = None
        self._fetching = 0
        self._restore()

    @property
    def runs(self) -> bool:
        """Whether records flow."""
        return self.is_alive and self._mailbox is not None and not self._prepare.commit_only

    @property
    def has_completed(self) -> bool:
        """Whether it was told that a checkpoint of its attempt is complete."""
        return self._confirmed is not None

    def die(self) -> None:
        """End at once; what it asked the world outside to do still happens."""
        self.is_alive = False
        if self._mailbox is not None:
            self._mailbox.close()
        self._sim.close_channels(self.attempt, self.chains)

    def fail(self, what: str) -> None:
        """Break, and tell."""
        if self.is_alive:
            self.die()
            self._worker.tell(told.AttemptFailed(self.attempt, Failure(what)))

    # ── restore ─────────────────────────────────────────────────────────────────────────────────

    def _restore(self) -> None:
        parts = {
            (uid, subtask.index): self._prepare.restore[uid][subtask.index]
            for subtask, chain in self.chains.items()
            for uid in chain.operators
            if subtask.index in self._prepare.restore.get(uid, {})
        }
        stored = {name: [Rows() for _ in part.keyed] for name, part in parts.items()}
        done = partial(self._fetched, parts, stored)
        self._fetching = 1
        for name, part in parts.items():
            for source, rows in zip(part.keyed, stored[name], strict=True):
                self._fetch(source, rows, done)
        done()

    def _fetch(self, source: KeyedSource, rows: Rows, done: Callable[[], None]) -> None:
        def arrived(data: bytes | None) -> None:
            if data is None:
                self.fail("a file of the snapshot is missing")
                return
            found = job.decode_rows(data)
            rows.update({group: of for group, of in found.items() if group in source.groups})
            done()

        for file in source.handle.files:
            if file.shared and int(file.local_name or 0) not in source.groups:
                continue
            path = file.path if "://" in file.path else source.folder + file.path
            self._fetching += 1
            self._get(path, arrived)

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

    def _fetched(
        self,
        parts: dict[tuple[OperatorId, int], OperatorRestore],
        stored: dict[tuple[OperatorId, int], list[Rows]],
    ) -> None:
        self._fetching -= 1
        if self._fetching:
            return
        restore: dict[OperatorId, dict[int, OperatorRestore]] = {}
        fetched: dict[OperatorId, dict[int, tuple[str, ...]]] = {}
        for (uid, index), part in parts.items():
            keyed = tuple(map(_inline, part.keyed, stored[uid, index]))
            restore.setdefault(uid, {})[index] = replace(part, keyed=keyed)
            fetched.setdefault(uid, {})[index] = ("",) * len(keyed)
        self._assembled(restore, fetched)

    def _assembled(
        self,
        restore: dict[OperatorId, dict[int, OperatorRestore]],
        fetched: dict[OperatorId, dict[int, tuple[str, ...]]],
    ) -> None:
        prepare, sim = self._prepare, self._sim
        plan = frames.Prepare(
            attempt=self.attempt,
            parallelism=prepare.attempt.parallelism,
            max_parallelism=prepare.attempt.max_parallelism,
            placement=prepare.attempt.placement,
            subtasks=prepare.subtasks[self._worker.id],
            restore=restore,
            committed=prepare.committed,
            job_nonce=prepare.job_nonce,
            graph=self._program.graph.to_json(),
            commit_only=prepare.commit_only,
            fetched=fetched,
        )
        around = Surroundings(
            job=JOB,
            now_ms=lambda: sim.world.now_ms,
            work_folder=sim.folder / f"{self._worker.id}-{sim.uuid()}",
            warn=sim.world.note,
            input_of=partial(sim.channel, self.attempt),
        )
        self._assembly = Assembly(self._program, plan, around)
        if prepare.commit_only:
            self.run()
        else:
            self._worker.tell(told.WorkerReady(self._worker.id, self.attempt))

    # ── running ─────────────────────────────────────────────────────────────────────────────────

    def run(self) -> None:
        """Connect and begin to turn."""
        if self._mailbox is None and self._assembly is not None:
            self._mailbox = Mailbox(
                self.attempt,
                self._assembly.wire(partial(self._sim.channel, self.attempt)),
                send=self._said,
                helper=Helper(self._sim.world),
                committed=self._prepare.committed,
            )
            self._turn(self._mailbox)

    def _turn(self, mailbox: Mailbox) -> None:
        if not self.is_alive:
            return
        world = self._sim.world
        # Several at one time: records then wait in an exchange while barriers come.
        for _ in range(world.rng.randrange(1, 4)):
            mailbox.turn(world.now_ms)
        world.after(world.rng.randrange(*self._sim.turns_ms), lambda: self._turn(mailbox))

    def _said(self, frame: AnyFrame) -> None:
        tell = self._worker.tell
        match frame:
            case frames.Snapshotted():
                self._upload_all(self._pairing.snapshotted(frame))
            case frames.Finished(subtask=subtask):
                tell(told.SubtaskFinished(self.attempt, subtask))
            case frames.Committed(checkpoint=checkpoint):
                tell(told.WorkerCommitted(self._worker.id, self.attempt, checkpoint))
            case frames.Heartbeat():
                pass
            case _:
                raise AssertionError(frame)

    def ordered(self, order: do.Trigger | do.Abort | do.Resume | do.NotifyCompleted) -> None:
        """What the coordinator says to a running attempt."""
        if self._mailbox is None:
            return
        n = order.checkpoint
        match order:
            case do.Trigger():
                if n in self._triggered:
                    return
                self._triggered.add(n)
                frame = frames.Trigger(
                    self.attempt, n, order.base, order.savepoint, order.stop, order.drain
                )
                self._upload_all(self._pairing.triggered(frame))
                self._mailbox.deliver(frame)
            case do.Abort(reason=reason):
                self._pairing.over(n)
                self.abort_uploads(n)
                self._mailbox.deliver(frames.Aborted(self.attempt, n, reason))
            case do.Resume():
                self._mailbox.deliver(frames.Resume(self.attempt, n))
            case do.NotifyCompleted(commit=commit):
                self._confirmed = max(n, self._confirmed or n)
                self._pairing.over(n)
                self._mailbox.deliver(frames.Completed(self.attempt, n, commit))

    # ── snapshots ───────────────────────────────────────────────────────────────────────────────

    def _upload_all(self, pairs: list[tuple[frames.Snapshotted, frames.Trigger]]) -> None:
        for part, trigger in pairs:
            self._upload(part, trigger)

    def _upload(self, part: frames.Snapshotted, trigger: frames.Trigger) -> None:
        sim = self._sim
        files: dict[str, bytes] = {}
        parts = dict(part.parts)
        for uid, copy in part.copies.items():
            snapshot = parts[uid].snapshot
            assert snapshot.keyed is not None, part
            rows = _copied(Path(copy), snapshot.keyed)
            keyed = self._keyed(part.subtask, snapshot.keyed.groups, rows, trigger, files)
            parts[uid] = replace(parts[uid], snapshot=replace(snapshot, keyed=keyed))
        root = SAVEPOINTS + "/" if trigger.savepoint else ""
        ack = told.SubtaskAcked(
            self.attempt,
            part.checkpoint,
            part.subtask,
            parts,
            files=tuple(path.removeprefix(root) for path in files),
            bytes_new=sum(map(len, files.values())),
        )
        if sim.world.chance(sim.declines):
            some = tuple(files)[: sim.world.rng.randrange(len(files) + 1)]
            there = {path: files[path] for path in some}
            self._put_all(part.checkpoint, there, lambda: self._decline(ack, some))
        else:
            self._put_all(part.checkpoint, files, lambda: self._worker.tell(ack))

    def _keyed(
        self,
        subtask: SubtaskId,
        owned: KeyGroupRange,
        rows: Rows,
        trigger: frames.Trigger,
        files: dict[str, bytes],
    ) -> KeyedHandle:
        sim, n = self._sim, trigger.checkpoint
        if trigger.savepoint or sim.world.chance(0.2):
            data = job.encode_rows(rows)
            if trigger.savepoint:
                path = SAVEPOINTS + "/" + trigger.savepoint
                path += f"{self.attempt}-{n}-{subtask.operator}-{subtask.index}-{sim.uuid()}"
                name = path.rpartition("/")[2]
            else:
                path = paths.private_file(JOB, self.attempt, n, subtask, sim.uuid())
                name = paths.relative_to_job(JOB, path)
            files[path] = data
            handle = FileHandle(name, len(data), zlib.crc32(data))
            return KeyedHandle(KeyedFormat.CANONICAL, owned, (handle,))
        mine = self._uploaded.setdefault(subtask, {})
        old = Base(n)
        if trigger.base is not None and trigger.base == self._confirmed:
            old = mine.get(trigger.base, old)
        new = mine[n] = Base(n)
        for group, tables in rows.items():
            data = job.encode_rows({group: tables})
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
        return KeyedHandle(KeyedFormat.ROCKSDB, owned, tuple(new.handles.values()))

    def _put_all(
        self, checkpoint: CheckpointId, files: dict[str, bytes], done: Callable[[], None]
    ) -> None:
        upload = Upload(checkpoint, set(files))
        self._uploads.append(upload)

        def put(path: str) -> None:
            self._sim.store.request(Put(path, files[path]), lambda a: reply(path, a))

        def reply(path: str, answer: StoreAnswer) -> None:
            if upload.is_aborted:
                self._delete((path,))
            elif self.is_alive and isinstance(answer, Unknown):
                put(path)
            elif self.is_alive and path in upload.left:
                upload.left.remove(path)
                upload.stored.append(path)
                finish_if_done()

        def finish_if_done() -> None:
            if self.is_alive and not upload.left and not upload.is_aborted:
                self._uploads.remove(upload)
                done()

        for path in files:
            put(path)
        if not files:
            self._sim.world.soon(finish_if_done, at_most_ms=50)

    def abort_uploads(self, checkpoint: CheckpointId | None = None) -> None:
        """Give uploads up, of one checkpoint or all, and delete what is there of them."""
        for upload in [u for u in self._uploads if checkpoint in (None, u.checkpoint)]:
            upload.is_aborted = True
            self._uploads.remove(upload)
            self._delete(tuple(upload.stored))

    def _delete(self, paths: tuple[str, ...]) -> None:
        self._sim.store.request(Delete(paths), lambda _: None)

    def _decline(self, ack: told.SubtaskAcked, uploaded: tuple[str, ...]) -> None:
        self._delete(uploaded)
        declined = told.SubtaskDeclined(
            self.attempt, ack.checkpoint, ack.subtask, "the disk is full"
        )
        self._worker.tell(declined)


class Worker:
    """A supervisor: holds the connection, prepares and cancels children."""

    def __init__(self, sim: Around, id: WorkerId) -> None:
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
            case do.Trigger(attempt) | do.Abort(attempt) | do.Resume(attempt) if (
                child and child.is_alive and child.attempt == attempt
            ):
                child.ordered(message)
            case do.NotifyCompleted(attempt, n) if (
                child and child.is_alive and child.attempt == attempt
            ):
                child.ordered(message)
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
            self.child.abort_uploads()
            self.child.die()
            self.child = None


def _inline(source: KeyedSource, rows: Rows) -> KeyedSource:
    """The same rows as a canonical stream."""
    file = io.BytesIO()
    offsets = canonical.write(
        file,
        groups=source.groups,
        max_parallelism=MAX_PARALLELISM,
        tables=sorted({table for tables in rows.values() for table in tables}),
        rows_of=lambda table, group: rows.get(group[0], {}).get(table, ()),
    )
    handle = KeyedHandle(
        KeyedFormat.CANONICAL, source.groups, inline=file.getvalue(), offsets=offsets
    )
    return replace(source, handle=handle)


def _copied(path: Path, handle: KeyedHandle) -> Rows:
    """What the backend copied out to a file, which is removed."""
    part = LocalPart(handle.format, handle.groups, handle.groups, path=path, offsets=handle.offsets)
    rows: Rows = {}
    with canonical.opened(part) as stream:
        for table, block in stream.blocks(handle.groups):
            for row, value in block:
                rows.setdefault(row[0], {}).setdefault(table, []).append((row, value))
    path.unlink()
    return rows
