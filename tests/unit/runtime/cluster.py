"""Workers of one job without a coordinator: real assemblies and mailboxes, turned by the test."""

from __future__ import annotations

import itertools
import random
from concurrent.futures import Future
from pathlib import Path

from penstock.checkpoint import restore
from penstock.checkpoint.events import SubtaskAcked
from penstock.checkpoint.pending import PendingCheckpoint
from penstock.checkpoint.schedule import Demand, Wanted
from penstock.connectors import collect
from penstock.core.chains import chains, subtasks_by_worker
from penstock.core.handles import KeyedHandle, SubtaskSnapshot
from penstock.core.ids import AttemptNumber, CheckpointId, JobId
from penstock.core.log import Attempt
from penstock.core.snapshots import OperatorPart
from penstock.dataflow.connector import Sink, Source
from penstock.dataflow.stream import Environment
from penstock.network import frames
from penstock.network.memory import MemoryChannel
from penstock.runtime.assembly import Assembly, Surroundings
from penstock.runtime.mailbox import Mailbox
from penstock.runtime.program import Program
from penstock.spec.streamjob import StreamJob
from penstock.testing.lists import Listed

MAX_PARALLELISM = 16
TURNS_MAX = 50_000
_names = itertools.count()


def new_name():
    """A job of its own for each test: what is collected is kept by its name."""
    return JobId(f"cluster-{next(_names)}")


def program(job, sources, *, parallelism, backend="FileSystem"):
    environment = Environment("cluster")
    job(environment)
    for node in environment.nodes():
        if isinstance(node.runs, Source):
            node.runs = Slowly(str(node.id), sources[str(node.id)])
        elif isinstance(node.runs, Sink):
            node.runs = collect.Collect()
    manifest = StreamJob.model_validate(
        {
            "apiVersion": "penstock.dev/v1alpha1",
            "kind": "StreamJob",
            "metadata": {"name": "cluster"},
            "spec": {
                "entrypoint": "cluster:job",
                "parallelism": parallelism,
                "state": {"backend": backend},
            },
        }
    )
    return Program(manifest, Path.cwd(), environment, environment.graph())


class Slowly(Listed):
    """At most three records a poll."""

    def open(self, ctx):
        reader = super().open(ctx)
        poll = reader.poll
        reader.poll = lambda limit: poll(min(limit, 3))
        return reader


class Later:
    """A helper that works when the test says so."""

    def __init__(self):
        self.waiting = []

    def submit(self, fn):
        future = Future()
        self.waiting.append((future, fn))
        return future

    def work(self):
        while self.waiting:
            future, fn = self.waiting.pop(0)
            try:
                future.set_result(fn())
            except Exception as e:
                future.set_exception(e)


class Cluster:
    """One attempt. `restored` is the manifest it starts from."""

    def __init__(
        self,
        job,
        sources,
        folder,
        *,
        name,
        parallelism,
        attempt=1,
        restored=None,
        capacity=1,
        backend="FileSystem",
    ):
        self.name = name
        self.now_ms = 0
        self.program = program(job, sources, parallelism=parallelism, backend=backend)
        self.channels = {}
        self.capacity = capacity
        self.sent = []
        self.helpers = []
        graph = self.program.graph
        placement = tuple(range(parallelism))
        self.attempt = Attempt(
            AttemptNumber(attempt), "1", parallelism, MAX_PARALLELISM, placement, CheckpointId(1)
        )
        self.chains = chains(graph, parallelism=parallelism)
        subtasks = subtasks_by_worker(graph, placement=placement)
        self.expected = frozenset(s for chain in self.chains for s in chain.subtasks())
        plan = {}
        if restored is not None:
            plan = restore.plan(
                restored, graph, parallelism=parallelism, folder="", rename={}, local=None
            )
        fetched = {
            uid: {index: ("",) * len(part.keyed) for index, part in parts.items()}
            for uid, parts in plan.items()
        }
        assemblies = []
        for worker in range(parallelism):
            prepare = frames.Prepare(
                attempt=self.attempt.number,
                parallelism=parallelism,
                max_parallelism=MAX_PARALLELISM,
                placement=placement,
                subtasks=subtasks[worker],
                restore=plan,
                committed=None if restored is None else restored.checkpoint,
                job_nonce="nonce",
                graph=graph.to_json(),
                fetched=fetched,
            )
            around = Surroundings(
                job=name,
                now_ms=lambda: self.now_ms,
                work_folder=folder / f"{attempt}-{worker}",
                warn=print,
                input_of=self.channel,
            )
            assemblies.append(Assembly(self.program, prepare, around))
        self.mailboxes = []
        for assembly in assemblies:
            helper = Later()
            self.helpers.append(helper)
            self.mailboxes.append(
                Mailbox(
                    self.attempt.number,
                    assembly.wire(self.channel),
                    send=self.sent.append,
                    helper=helper,
                    committed=prepare.committed,
                )
            )

    def channel(self, id):
        return self.channels.setdefault(id, MemoryChannel(id, self.capacity))

    def tasks(self):
        return {str(task.subtask): task for mailbox in self.mailboxes for task in mailbox.tasks}

    def turn(self, *workers):
        """A turn of some workers (of all, when none is named); whether any had work."""
        self.now_ms += 1
        worked = False
        for worker in workers or range(len(self.mailboxes)):
            worked |= self.mailboxes[worker].turn(self.now_ms)
        return worked

    def help(self):
        """Do what was asked of other threads."""
        for helper in self.helpers:
            helper.work()

    def deliver(self, frame):
        for mailbox in self.mailboxes:
            mailbox.deliver(frame)

    def trigger(self, n):
        self.deliver(frames.Trigger(self.attempt.number, CheckpointId(n), None))

    def completed(self, n):
        self.deliver(frames.Completed(self.attempt.number, CheckpointId(n), commit=True))

    def finished(self):
        done = {f.subtask for f in self.sent if isinstance(f, frames.Finished)}
        return done == self.expected

    def manifest(self, n):
        """The manifest of a checkpoint once all subtasks gave their parts; else None."""
        parts = {
            f.subtask: f
            for f in self.sent
            if isinstance(f, frames.Snapshotted) and f.checkpoint == n
        }
        if parts.keys() != self.expected:
            return None
        pending = PendingCheckpoint(CheckpointId(n), Wanted(Demand.PERIODIC), self.expected, 0)
        for subtask, frame in parts.items():
            inlined = {
                uid: _inlined(part, frame.copies.get(uid)) for uid, part in frame.parts.items()
            }
            pending.acknowledge(
                SubtaskAcked(self.attempt.number, CheckpointId(n), subtask, inlined)
            )
        return pending.manifest(self.name, self.attempt, self.chains, now_ms=self.now_ms)

    def run_until(self, fact, rng=None):
        """Turn workers in some order until something is so."""
        rng = rng or random.Random(0)
        for _ in range(TURNS_MAX):
            if fact():
                return
            self.turn(rng.randrange(len(self.mailboxes)))
            if rng.random() < 0.3:
                self.help()
        raise AssertionError(f"not so after {TURNS_MAX} turns: two tasks wait for each other")

    def checkpoint(self, n, rng=None):
        """Take a checkpoint, complete it and let the sinks commit; its manifest."""
        self.trigger(n)
        self.run_until(lambda: self.manifest(n) is not None, rng)
        self.completed(n)
        return self.manifest(n)

    def end(self, n, rng=None):
        """Run to the end, with the last checkpoint; what the sink `out` has committed in all."""
        self.run_until(self.finished, rng)
        self.checkpoint(n, rng)
        self.run_until(lambda: self.committed_to(n), rng)
        return collect.committed(self.name, "out")

    def committed_to(self, n):
        told = [f for f in self.sent if isinstance(f, frames.Committed) and f.checkpoint >= n]
        return len(told) >= len(self.mailboxes)

    def close(self):
        for mailbox in self.mailboxes:
            mailbox.close()


def _inlined(part, path):
    if path is None:
        return part
    keyed = part.snapshot.keyed
    assert keyed is not None
    whole = KeyedHandle(
        keyed.format, keyed.groups, inline=Path(path).read_bytes(), offsets=keyed.offsets
    )
    lists, watermark = part.snapshot.lists, part.snapshot.watermark_ms
    return OperatorPart(SubtaskSnapshot(whole, lists, watermark), part.states, part.key_schema)
