"""A conversation with one coordinator: a store in a dict that answers by itself, unless told not to."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import pytest

from penstock.checkpoint import effects as do
from penstock.checkpoint import events as told
from penstock.checkpoint import log, recovery
from penstock.checkpoint.coordinator import JobCoordinator
from penstock.checkpoint.phases import Phase
from penstock.checkpoint.settings import CheckpointSettings, ExponentialDelay, FixedDelay, Identity
from penstock.core.chains import chains
from penstock.core.descriptors import StateDescriptor, StateKind
from penstock.core.errors import Rejected
from penstock.core.failure import Failure
from penstock.core.graph import Edge, Exchange, JobGraph, Operator
from penstock.core.handles import FileHandle, KeyedFormat, KeyedHandle, SubtaskSnapshot
from penstock.core.ids import AttemptNumber, CheckpointId, JobId, OperatorId, SubtaskId, WorkerId
from penstock.core.keygroups import owned_range
from penstock.core.log import Entry
from penstock.core.manifest import Manifest
from penstock.core.snapshots import OperatorPart

JOB = JobId("wordcount")
SAVEPOINTS = "mem://savepoints"
LINES, COUNTS, OUT = OperatorId("lines"), OperatorId("counts"), OperatorId("out")
COUNT = StateDescriptor("count", StateKind.VALUE, "msgpack/1", "int")
GRAPH = JobGraph(
    name=JOB,
    operators=(
        Operator(LINES, "source", uid=True),
        Operator(COUNTS, "process", uid=True, key="word", key_schema="str", states=(COUNT,)),
        Operator(OUT, "sink", uid=True),
    ),
    edges=(Edge(LINES, COUNTS, Exchange.HASH), Edge(COUNTS, OUT, Exchange.FORWARD)),
)
E = TypeVar("E")


def _with_live(base: CheckpointSettings, live: Mapping[str, Any]) -> CheckpointSettings:
    if "wrong" in live:
        raise Rejected("spec.wrong is no field", where="settings", fix="leave it out")
    named = dict(live)
    delay_ms = named.pop("delay_ms", None)
    return replace(base, restart=FixedDelay(delay_ms) if delay_ms else base.restart, **named)


class Store:
    """Objects by path, and the answers to the log's generators."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def answer(self, request: log.StoreRequest) -> log.StoreAnswer:
        match request:
            case log.PutIfAbsent(path, data):
                if path in self.objects:
                    return False
                self.objects[path] = data
                return True
            case log.Get(path):
                return self.objects.get(path)
            case log.List(prefix):
                return {p: len(d) for p, d in self.objects.items() if p.startswith(prefix)}

    def drive(self, steps) -> Any:
        answer: log.StoreAnswer = None
        while True:
            try:
                answer = self.answer(steps.send(answer))
            except StopIteration as stop:
                return stop.value

    def newest(self) -> Entry | None:
        return self.drive(log.read_newest(JOB))


class Conversation:
    """Say what happened, look at what is to be done.

    `held` are kinds of effects that get no answer by themselves: `answer(effect)` gives it.
    """

    def __init__(
        self,
        store: Store | None = None,
        *,
        name: str = "A",
        workers: int = 2,
        graph: JobGraph = GRAPH,
        owner: str = "me",
        revision: str = "1",
        asks: Iterable[told.Event] = (),
        **settings: Any,
    ) -> None:
        self.store = store or Store()
        self.effects: list[do.Effect] = []
        self.held: set[type] = set()
        self.now_ms = 0
        settings.setdefault("restart", ExponentialDelay(1_000, 60_000))
        base = CheckpointSettings(**settings)
        self.job = JobCoordinator(
            Identity(JOB, owner, revision, name, SAVEPOINTS),
            graph,
            base,
            read_settings=lambda live: _with_live(base, live),
        )
        first = self.job.start()
        self.say(*asks)
        self._do(first)
        for worker in range(workers):
            self.say(told.WorkerJoined(WorkerId(worker)))

    # ── saying ──────────────────────────────────────────────────────────────────────────────────

    def say(self, *events: told.Event) -> list[do.Effect]:
        """The effects of these events, and of the answers to them."""
        start = len(self.effects)
        for event in events:
            self._do(self.job.handle(event))
        return self.effects[start:]

    def wait(self, duration_ms: int) -> list[do.Effect]:
        self.now_ms += duration_ms
        return self.say(told.Tick(self.now_ms))

    def answer(self, effect: do.Effect) -> list[do.Effect]:
        """What the store does with an effect that was held."""
        start = len(self.effects)
        match effect:
            case do.ReadLog():
                self.say(self.store.drive(recovery.read_job(JOB)))
            case do.Append(entry):
                outcome = self.store.drive(log.append(JOB, entry))
                if isinstance(outcome, log.Won):
                    self.say(told.EntryWon(outcome.entry))
                else:
                    self.say(told.EntryLost(outcome.newest))
            case do.WriteManifest(path, manifest):
                data = manifest.to_bytes()
                if self.store.drive(log.create(path, data)) == data:
                    digest = hashlib.sha256(data).hexdigest()
                    self.say(told.ManifestWritten(manifest.checkpoint, digest))
                else:
                    self.say(told.ManifestRefused(manifest.checkpoint, "taken", is_taken=True))
            case do.PublishSavepoint(request_id, path, manifest):
                self.store.drive(log.create(f"{SAVEPOINTS}/{path}", manifest.to_bytes()))
                self.say(told.SavepointPublished(request_id))
            case do.DeleteSnapshot(snapshot, paths):
                for path in paths:
                    self.store.objects.pop(path, None)
                self.say(told.SnapshotDeleted(snapshot))
            case do.DisposeSavepoint(request_id, paths):
                for path in paths:
                    self.store.objects.pop(f"{SAVEPOINTS}/{path}", None)
                self.say(told.SavepointDisposed(request_id))
            case do.DeleteFiles(paths, savepoints):
                for path in paths:
                    self.store.objects.pop((f"{SAVEPOINTS}/" if savepoints else "") + path, None)
        return self.effects[start:]

    def _do(self, effects: Iterable[do.Effect]) -> None:
        for effect in effects:
            self.effects.append(effect)
            if type(effect) not in self.held:
                self.answer(effect)

    # ── whole exchanges ─────────────────────────────────────────────────────────────────────────

    def run(self, *, parallelism: int = 2, **order: Any) -> "Conversation":
        """Start the job and bring it to running."""
        newest = self.store.newest()
        after = newest.seq if newest else 0
        order = {"request_id": f"start-{after}", "after": after, "revision": "1", **order}
        self.say(told.StartOrdered(parallelism=parallelism, **order))
        self.ready()
        return self

    def ready(self, *, fetched: int = 0) -> None:
        """Every worker restored what it was told."""
        for worker in self.last(do.Prepare).subtasks:
            self.say(told.WorkerReady(worker, self.attempt, fetched))

    def checkpoint(self) -> list[do.Effect]:
        """Let the interval pass, and acknowledge."""
        effects = self.wait(10_000)
        return effects + self.acknowledge()

    def acknowledge(self, **how: Any) -> list[do.Effect]:
        """Every subtask's part of the checkpoint that was triggered last."""
        trigger = self.last(do.Trigger)
        return self.say(*(self.ack(trigger, s, **how) for s in self.subtasks))

    def ack(
        self,
        trigger: do.Trigger,
        subtask: SubtaskId,
        *,
        shared: Iterable[str] = (),
        name: str | None = None,
    ) -> told.SubtaskAcked:
        """A part with one file of its own (counts only), and the shared files named."""
        parts = {LINES: OperatorPart(SubtaskSnapshot(lists={"offsets": (b"1",)}))}
        files: tuple[str, ...] = ()
        if subtask.operator == COUNTS:
            name = name or f"{trigger.attempt}-{trigger.checkpoint}-{subtask.index}"
            width = self.job.entry.attempt.parallelism
            groups = owned_range(subtask.index, parallelism=width, max_parallelism=128)
            if trigger.savepoint is not None:
                handle, path = name, trigger.savepoint + name
                self.store.objects[f"{SAVEPOINTS}/{path}"] = b"file"
            else:
                handle = f"chk-{trigger.checkpoint}/{name}"
                path = f"{JOB}/{handle}"
                self.store.objects[path] = b"file"
            handles = [FileHandle(handle, 4, 0)]
            for other in shared:
                self.store.objects[f"{JOB}/shared/{other}"] = b"shared"
                handles.append(FileHandle(f"shared/{other}", 6, 0, shared=True))
            keyed = KeyedHandle(KeyedFormat.ROCKSDB, groups, tuple(handles))
            parts = {
                COUNTS: OperatorPart(SubtaskSnapshot(keyed=keyed), (COUNT,), "str"),
                OUT: OperatorPart(SubtaskSnapshot(lists={"pending": (b"1",)})),
            }
            files = (path, *(f"{JOB}/shared/{other}" for other in shared))
        return told.SubtaskAcked(trigger.attempt, trigger.checkpoint, subtask, parts, files)

    def committed(self, checkpoint: int | None = None) -> list[do.Effect]:
        """Every worker's sinks committed all that they were told to."""
        if checkpoint is None:
            checkpoint = self.last(do.NotifyCompleted).checkpoint
        return self.say(
            *(
                told.WorkerCommitted(WorkerId(w), self.attempt, CheckpointId(checkpoint))
                for w in range(self.job.entry.attempt.parallelism)
            )
        )

    def fail(self, what: str = "the author's code raised", **failure: Any) -> list[do.Effect]:
        return self.say(told.AttemptFailed(self.attempt, Failure(what, **failure)))

    # ── looking ─────────────────────────────────────────────────────────────────────────────────

    @property
    def phase(self) -> Phase:
        return self.job.phase

    @property
    def attempt(self) -> AttemptNumber:
        return self.job.entry.attempt.number

    @property
    def subtasks(self) -> list[SubtaskId]:
        width = self.job.entry.attempt.parallelism
        return [s for chain in chains(GRAPH, parallelism=width) for s in chain.subtasks()]

    def last(self, kind: type[E]) -> E:
        return next(e for e in reversed(self.effects) if isinstance(e, kind))

    def answer_to(self, request_id: str) -> do.Answer:
        answers = [e for e in self.effects if isinstance(e, do.Answer)]
        return next(a for a in reversed(answers) if a.request_id == request_id)

    def manifest(self, path: str) -> Manifest:
        return Manifest.from_bytes(self.store.objects[path], path=path)

    def crash(self, **settings: Any) -> "Conversation":
        """This one is gone; the next begins with what the store has."""
        return Conversation(self.store, name=f"{self.job._identity.incarnation}'", **settings)


@pytest.fixture
def new() -> type[Conversation]:
    return Conversation


@pytest.fixture
def store() -> Store:
    return Store()
