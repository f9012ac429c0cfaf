"""The child: runs the author's code for one attempt, and nothing else.

It is started by a supervisor, waits for one Prepare on the socketpair that it inherited, and ends
with that attempt. Sockets, clock and threads are made here; what is done with them is the mailbox's.
"""

from __future__ import annotations

import gc
import logging
import os
import socket
import sys
import time
from argparse import ArgumentParser
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from penstock.core.chains import worker_of
from penstock.core.errors import PenstockError
from penstock.core.graph import JobGraph
from penstock.core.ids import ChannelId, JobId
from penstock.network import frames
from penstock.network.control import ControlSocket
from penstock.network.memory import MemoryChannel
from penstock.network.poller import Polled, Poller
from penstock.network.port import Input, Output
from penstock.runtime.assembly import Assembly, Surroundings
from penstock.runtime.backends import local_directories
from penstock.runtime.clock import Clock
from penstock.runtime.failures import CannotCommit, failure_of, is_for_good
from penstock.runtime.mailbox import Mailbox
from penstock.runtime.pdeathsig import die_with_parent
from penstock.runtime.pod import TOKEN_VARIABLE
from penstock.runtime.program import Program, load_program

CONNECT_TIMEOUT_S = 20.0
_IDLE_WAIT_S = 0.005
_BUSY_ELSEWHERE_WAIT_S = 0.001
_COLLECT_EVERY_S = 10.0
_EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104


class _Cancelled(Exception):
    """The supervisor asked, or is gone."""


class _Channels:
    """The ends of this worker's channels: in memory to itself, TCP to others."""

    def __init__(self, poller: Poller, graph: JobGraph, plan: frames.Prepare, worker: int) -> None:
        self._poller = poller
        self._graph = graph
        self._plan = plan
        self._worker = worker
        self._inside: dict[ChannelId, MemoryChannel] = {}
        self.addresses: dict[int, tuple[str, int]] = {}

    def input(self, channel: ChannelId) -> Input:
        """The receiving end."""
        source = self._worker_of(self._graph.edges[channel.edge].source, channel.source)
        if source == self._worker:
            return self._inside.setdefault(channel, MemoryChannel(channel))
        return self._poller.input(channel)

    def output(self, channel: ChannelId) -> Output:
        """The sending end; addresses are known by now."""
        target = self._worker_of(self._graph.edges[channel.edge].target, channel.target)
        if target == self._worker:
            return self._inside.setdefault(channel, MemoryChannel(channel))
        deadline = time.monotonic() + CONNECT_TIMEOUT_S
        return self._poller.connect(channel, self.addresses[target], deadline)

    def _worker_of(self, operator: str, index: int) -> int:
        own = next(o for o in self._graph.operators if o.id == operator).parallelism
        width = min(own or self._plan.parallelism, self._plan.parallelism)
        return worker_of(index, parallelism=width, placement=self._plan.placement)


class _Said(logging.Handler):
    """Sends the author's log lines to the coordinator."""

    def __init__(self, control: ControlSocket) -> None:
        super().__init__()
        self._control = control

    def emit(self, record: logging.LogRecord) -> None:
        fields = {"operator": record.name.rpartition(".")[2]}
        self._control.post(frames.Said(record.levelname.lower(), record.getMessage(), fields))


class Child:
    """One attempt on one worker."""

    def __init__(self, control: ControlSocket, manifest: Path, folder: Path, worker: int) -> None:
        self._control = control
        self._manifest = manifest
        self._folder = folder
        self._worker = worker
        self._clock = Clock()

    def run(
        self, *, token: bytes, job: JobId, work_folder: Path, host: str, address: str | None
    ) -> None:
        """Wait for an attempt, run it, and tell why it ended if it did not end by order."""
        plan = self._control.receive()
        if not isinstance(plan, frames.Prepare):
            return
        logger = logging.getLogger("penstock.job")
        logger.setLevel(logging.INFO)
        logger.addHandler(_Said(self._control))
        logger.propagate = False
        poller = Poller(token, plan.attempt)
        is_running = False
        try:
            program = load_program(self._manifest, self._folder)
            channels = _Channels(poller, program.graph, plan, self._worker)
            around = Surroundings(
                job=job,
                now_ms=self._clock.now_ms,
                work_folder=work_folder / f"attempt-{plan.attempt}",
                warn=self._warn,
                input_of=channels.input,
                directories=local_directories(program.manifest.spec),
            )
            mailbox = self._prepared(program, plan, around, poller, channels, (host, address))
            is_running = True
            self._serve(mailbox, poller)
        except _Cancelled:
            pass
        except (Exception, SystemExit) as e:  # noqa: BLE001  whatever it is, the coordinator is told
            self._tell(plan, e, is_running=is_running)
        finally:
            poller.close()

    def _prepared(
        self,
        program: Program,
        plan: frames.Prepare,
        around: Surroundings,
        poller: Poller,
        channels: _Channels,
        listening: tuple[str, str | None],
    ) -> Mailbox:
        poller.watch(self._control)
        if plan.commit_only:
            # Nobody sends, so there is no Run to wait for.
            return self._mailbox(plan, Assembly(program, plan, around), channels)
        host, address = listening
        port = poller.listen(host)[1]
        assembly = Assembly(program, plan, around)
        gc.collect()
        gc.freeze()
        gc.set_threshold(100_000, 20, 1_000_000)
        # Everywhere is no address to connect to: the coordinator puts the one it sees in its place.
        shown = address or ("" if host in _EVERYWHERE else host)
        self._control.send(frames.Ready(plan.attempt, (shown, port)))
        while True:
            ready = self._frames()
            for i, frame in enumerate(ready):
                if isinstance(frame, frames.Run):
                    channels.addresses = frame.addresses
                    mailbox = self._mailbox(plan, assembly, channels)
                    # A checkpoint that somebody waits for is triggered in the same breath.
                    for later in ready[i + 1 :]:
                        mailbox.deliver(later)
                    return mailbox
            # Others may still download what they restore, for longer than progressTimeout.
            self._control.post(frames.Heartbeat(plan.attempt, 0))
            _check(poller.poll(1.0))

    def _mailbox(self, plan: frames.Prepare, assembly: Assembly, channels: _Channels) -> Mailbox:
        return Mailbox(
            plan.attempt,
            assembly.wire(channels.output),
            send=self._control.post,
            helper=ThreadPoolExecutor(1, thread_name_prefix="helper"),
            committed=plan.committed,
            clock_ns=time.perf_counter_ns,
        )

    def _serve(self, mailbox: Mailbox, poller: Poller) -> None:
        collected_s = time.monotonic()
        try:
            while True:
                worked = mailbox.turn(self._clock.now_ms())
                if worked:
                    wait_s = 0.0
                elif mailbox.is_busy_elsewhere:
                    wait_s = _BUSY_ELSEWHERE_WAIT_S
                else:
                    wait_s = _IDLE_WAIT_S
                    if time.monotonic() - collected_s > _COLLECT_EVERY_S:
                        gc.collect()
                        collected_s = time.monotonic()
                polled = poller.poll(wait_s, although_ready=not worked)
                if self._control in polled.watched or self._control.has_unsent:
                    self._control.flush()
                    for frame in self._frames():
                        mailbox.deliver(frame)
                _check(polled)
        finally:
            mailbox.close()

    def _frames(self) -> list[frames.AnyFrame]:
        ready = self._control.receive_ready()
        if any(isinstance(f, frames.Cancel) for f in ready) or self._control.has_ended:
            raise _Cancelled
        return ready

    def _warn(self, message: str) -> None:
        self._control.post(frames.Said("warning", message))

    def _tell(self, plan: frames.Prepare, error: BaseException, *, is_running: bool) -> None:
        failure = failure_of(error, self._folder)
        is_fatal = isinstance(error, CannotCommit) or (not is_running and is_for_good(error))
        self._control.send(frames.Failed(plan.attempt, replace(failure, fatal=is_fatal)))


def _check(polled: Polled) -> None:
    for lost in polled.lost:
        raise PenstockError(f"channel {lost.channel} broke: {lost.reason}")


def main() -> None:
    """Entry point: `python -m penstock.runtime.child`, started by a supervisor only."""
    parser = ArgumentParser(prog="penstock child")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--job", required=True)
    parser.add_argument("--worker", type=int, required=True)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--address")
    flags = parser.parse_args()
    die_with_parent()
    control = ControlSocket(socket.socket(fileno=flags.fd))
    child = Child(control, flags.manifest, flags.folder, flags.worker)
    child.run(
        token=os.environ[TOKEN_VARIABLE].encode(),
        job=JobId(flags.job),
        work_folder=flags.workdir,
        host=flags.host,
        address=flags.address,
    )
    control.close()
    sys.stdout.flush()
    # Threads that wait for a store or a database must not keep an ended attempt alive.
    os._exit(0)


if __name__ == "__main__":
    main()
