"""A worker's child at work and its spare, as the supervisor sees them."""

import selectors
import signal
import socket
import subprocess
from collections.abc import Iterator
from itertools import count

import pytest

from penstock.core.failure import Failure
from penstock.core.ids import AttemptNumber
from penstock.network import frames
from penstock.network.control import ControlSocket
from penstock.runtime.children import ChildProcess, Children

NAME = "the child of worker 0"


class Script:
    """A process of a test: it lives until it is killed or told to exit."""

    def __init__(self, pid: int, control: ControlSocket) -> None:
        self.pid = pid
        self.said = control
        self.code: int | None = None
        self.waited_s: list[float | None] = []
        self.heard: list[frames.AnyFrame] = []

    def exit(self, code: int) -> None:
        self.code = code
        self.heard += self.said.receive_ready()
        self.said.close()

    def poll(self) -> int | None:
        return self.code

    def wait(self, timeout: float | None = None) -> int:
        self.waited_s.append(timeout)
        if self.code is None:
            assert timeout is not None, "nobody would ever come back"
            raise subprocess.TimeoutExpired("child", timeout)
        return self.code

    def kill(self) -> None:
        if self.code is None:
            self.exit(-signal.SIGKILL)


class Scene:
    """Children over socketpairs; `started` are their far ends, in order."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.started: list[Script] = []
        self.selector = selectors.DefaultSelector()
        self._pids = count(1000)
        self.children = Children(self._start, self.selector)

    def _start(self) -> ChildProcess:
        ours, theirs = socket.socketpair()
        script = Script(next(self._pids), ControlSocket(theirs))
        self.started.append(script)
        return ChildProcess(script, ControlSocket(ours), clock_s=lambda: self.now_s)

    def at_work(self, attempt: int = 3) -> tuple[ChildProcess, Script]:
        """A child with everything it restores, and its far end."""
        child = self.children.put_to_work(plan(attempt))
        child.begin(plan(attempt), fetched_bytes=77)
        script = self.started[-1]
        assert isinstance(script.said.receive(5), frames.Prepare)
        return child, script


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    scene.children.close()
    for script in scene.started:
        script.said.close()
    scene.selector.close()


def plan(attempt: int = 3) -> frames.Prepare:
    return frames.Prepare(
        attempt=AttemptNumber(attempt),
        parallelism=1,
        max_parallelism=128,
        placement=(0,),
        subtasks=(),
        restore={},
        committed=None,
        job_nonce="n",
        graph={},
        commit_only=False,
    )


def test_the_spare_gets_the_attempt_and_no_other_is_started(scene: Scene):
    scene.children.warm()
    scene.children.warm()
    child = scene.children.put_to_work(plan())
    assert [script.pid for script in scene.started] == [child.process.pid]
    assert scene.children.pids == {child.process.pid}
    scene.children.warm()
    assert len(scene.children.pids) == 2


def test_an_attempt_without_a_spare_has_a_child_started_for_it(scene: Scene):
    scene.children.put_to_work(plan())
    assert len(scene.started) == 1


def test_a_spare_that_died_is_let_go_and_the_attempt_gets_another(scene: Scene):
    scene.children.warm()
    scene.started[0].exit(1)
    scene.children.drop_dead_spare()
    assert scene.children.pids == set()
    child = scene.children.put_to_work(plan())
    assert child.process.pid == scene.started[1].pid


def test_a_child_is_at_its_own_attempt_and_at_no_other(scene: Scene):
    assert not scene.children.is_at(AttemptNumber(3))
    scene.children.put_to_work(plan())
    assert scene.children.is_at(AttemptNumber(3))
    assert not scene.children.is_at(AttemptNumber(2))
    scene.children.end()
    assert not scene.children.is_at(AttemptNumber(3))


def test_a_cancelled_child_is_asked_and_given_a_moment_before_it_is_killed(scene: Scene):
    _, script = scene.at_work()
    scene.children.end(ask=True)
    assert script.heard == [frames.Cancel(AttemptNumber(3))]
    assert script.waited_s[0] is not None
    assert script.code == -signal.SIGKILL
    assert scene.children.at_work is None


def test_a_child_that_is_gone_is_not_waited_for(scene: Scene):
    child, script = scene.at_work()
    script.exit(0)
    child.heard()
    scene.children.end(ask=True)
    assert script.waited_s == [None]


def test_one_that_is_not_asked_is_killed_at_once(scene: Scene):
    _, script = scene.at_work()
    scene.children.end()
    assert script.waited_s == [None]
    assert script.heard == []


def test_nobody_listens_to_a_child_that_was_ended(scene: Scene):
    scene.at_work()
    scene.children.end()
    assert list(scene.selector.get_map()) == []


def test_what_it_fetched_is_told_when_it_is_ready(scene: Scene):
    child, script = scene.at_work()
    script.said.send(frames.Ready(AttemptNumber(3), ("127.0.0.1", 1)))
    assert child.heard() == [
        frames.Ready(AttemptNumber(3), ("127.0.0.1", 1), fetched_bytes=77),
    ]


def test_its_silence_is_told_with_what_it_last_counted(scene: Scene):
    child, script = scene.at_work()
    metrics = {"counts/0": frames.OperatorMetrics(records_in=5)}
    script.said.send(frames.Heartbeat(AttemptNumber(3), 0, metrics))
    child.heard()
    scene.now_s += 2.5
    assert child.beat() == frames.Heartbeat(AttemptNumber(3), 2500, metrics)
    script.said.send(frames.Heartbeat(AttemptNumber(3), 0, metrics))
    child.heard()
    assert child.beat().progress_age_ms == 0


def test_while_its_state_is_downloaded_it_need_not_say_anything(scene: Scene):
    child = scene.children.put_to_work(plan())
    scene.now_s += 600
    assert child.beat().progress_age_ms == 0
    child.begin(plan(), fetched_bytes=0)
    scene.now_s += 1
    assert child.beat().progress_age_ms == 1000


@pytest.mark.parametrize(
    ("code", "how", "look"),
    [
        (-signal.SIGKILL, "was killed by signal 9", "memory"),
        (-signal.SIGSEGV, "was killed by signal 11", "PYTHONFAULTHANDLER"),
        (3, "ended with exit code 3", "os._exit"),
    ],
)
def test_one_that_dies_without_a_word_is_spoken_for(scene: Scene, code: int, how: str, look: str):
    child, script = scene.at_work()
    assert not child.has_ended
    script.exit(code)
    child.heard()
    assert child.has_ended
    word = child.last_word(NAME)
    assert word is not None
    assert word.attempt == 3
    assert word.failure.what == f"{NAME} {how}"
    assert look in (word.failure.fix or "")


def test_one_that_told_why_it_ends_is_not_spoken_for(scene: Scene):
    child, script = scene.at_work()
    told = frames.Failed(AttemptNumber(3), Failure("operator counts raised KeyError"))
    script.said.send(told)
    script.exit(0)
    assert child.heard() == [told]
    assert child.has_ended
    assert child.last_word(NAME) is None
