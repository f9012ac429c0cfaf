"""The examples, against oracles that know nothing of Penstock: in one process, and as a person runs
them."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock import testing
from penstock.spec.entrypoint import load_job

EXAMPLES = Path(__file__).parents[2] / "examples"
SHAKESPEARE = EXAMPLES / "data" / "shakespeare.txt"
ACCESS_LOG = EXAMPLES / "data" / "access.log"


# ── oracles ───────────────────────────────────────────────────────────────────────────────────────


def words_of(text: str) -> Counter[str]:
    """Runs of letters and apostrophes, in lower case."""
    kept = "".join(c if c.isascii() and (c.isalpha() or c == "'") else " " for c in text.lower())
    return Counter(kept.split())


def requests_of(text: str) -> Counter[tuple[str, str, str]]:
    """(host, time, path) of each line that has both its quoted texts closed."""
    found: Counter[tuple[str, str, str]] = Counter()
    for line in text.splitlines():
        if line.count('"') == 6:
            host, at, path = line.split()[0], line.split("[")[1].split("]")[0], line.split()[6]
            found[host, at, path] += 1
    return found


def test_the_oracles_say_what_is_known_of_the_data():
    counts = words_of(SHAKESPEARE.read_text())
    assert (len(counts), counts["the"]) == (12_631, 6_283)
    requests = requests_of(ACCESS_LOG.read_text())
    assert (len(requests), requests.total() - len(requests)) == (9_976, 23)


# ── in one process, with crashes ──────────────────────────────────────────────────────────────────


@pytest.fixture
def job(request: pytest.FixtureRequest) -> Iterator[Callable[..., None]]:
    """The job of an example, found as `penstock run` finds it."""
    folder, entrypoint = request.param
    before, modules = list(sys.path), set(sys.modules)
    yield load_job(entrypoint, EXAMPLES / folder)
    sys.path[:] = before
    for name in set(sys.modules) - modules:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").is_relative_to(EXAMPLES):
            del sys.modules[name]


example = pytest.mark.parametrize
IO = {"input": "unused", "output": "unused"}


@example("job", [("wordcount", "wordcount:job")], indirect=True, ids=["wordcount"])
def test_wordcount_writes_each_word_once_with_its_count(job):
    lines = SHAKESPEARE.read_text().splitlines()[:3000]
    run = testing.run_job(
        job, sources={"lines": lines}, parallelism=2, crash_after=[500, 2900], **IO
    )
    out = run.sink("out")
    assert dict(out) == words_of("\n".join(lines))
    assert len(out) == len(dict(out))


@example("job", [("socket-wordcount", "socket_wordcount:job")], indirect=True, ids=["socket"])
def test_socket_wordcount_counts_on_after_a_crash(job):
    lines = SHAKESPEARE.read_text().splitlines()[:300]
    run = testing.run_job(job, sources={"lines": lines}, parallelism=2, crash_after=[100, 301])
    expected = Counter(" ".join(lines).split())
    assert sorted(run.sink("out")) == sorted(
        (word, i) for word, n in expected.items() for i in range(1, n + 1)
    )


@example("job", [("deduplicate", "deduplicate:job")], indirect=True, ids=["deduplicate"])
def test_deduplicate_lets_each_request_through_once_and_the_others_go_aside(job):
    text = ACCESS_LOG.read_text()
    run = testing.run_job(
        job,
        sources={"lines": text.splitlines()},
        parallelism=2,
        crash_after=[3000, 6000, 9900],
        **IO,
    )
    expected = requests_of(text)
    shown = [keys(run.sink(uid)) for uid in ("out", "again")]
    assert shown[0] == Counter(dict.fromkeys(expected, 1))
    assert shown[1] == expected - shown[0]


def keys(requests: list[Any]) -> Counter[tuple[str, str, str]]:
    """The requests of a sink in the oracle's words."""
    return Counter((r.host, r.at.strftime("%d/%b/%Y:%H:%M:%S %z"), r.path) for r in requests)


# ── as a person runs them ─────────────────────────────────────────────────────────────────────────


class Terminal:
    """A copy of one example, and the command line in its folder."""

    def __init__(self, folder: Path, name: str) -> None:
        shutil.copytree(EXAMPLES / "data", folder / "data")
        ignored = shutil.ignore_patterns("state", "out", ".*", "__pycache__")
        self.folder = folder / name
        shutil.copytree(EXAMPLES / name, self.folder, ignore=ignored)
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")},
            "PYTHONPATH": str(Path(penstock.__file__).parents[1]),
            "XDG_STATE_HOME": str(folder / "registry"),
        }
        self._started: list[subprocess.Popen[bytes]] = []

    def __call__(self, *arguments: str) -> str:
        """Run a command to its end; its output."""
        command = [sys.executable, "-m", "penstock", *arguments]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, output: Path, *arguments: str) -> subprocess.Popen[bytes]:
        """Begin `penstock run` and leave it running; what it prints goes to a file."""
        command = [sys.executable, "-m", "penstock", "run", "streamjob.yaml", "--port", "0"]
        with output.open("wb") as file:
            process = subprocess.Popen(
                [*command, *arguments],
                cwd=self.folder,
                env=self.env,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        self._started.append(process)
        return process

    def results(self, under: str) -> list[Any]:
        """The JSON lines that a sink's files have."""
        files = (self.folder / under).glob("*.jsonl")
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]

    def end(self) -> None:
        """Leave nothing behind."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.wait()


@pytest.fixture
def terminal(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Terminal]:
    made = Terminal(tmp_path, request.param)
    yield made
    made.end()


@pytest.mark.process
@example("terminal", ["wordcount"], indirect=True)
def test_wordcount_runs_from_its_manifest(terminal):
    terminal("run", "streamjob.yaml", "--port", "0")
    out = terminal.results("out")
    assert dict(map(tuple, out)) == words_of(SHAKESPEARE.read_text())
    assert len(out) == 12_631


@pytest.mark.process
@example("terminal", ["deduplicate"], indirect=True)
def test_deduplicate_runs_from_its_manifest(terminal):
    terminal("run", "streamjob.yaml", "--port", "0")
    expected = requests_of(ACCESS_LOG.read_text())
    first, again = terminal.results("out/first"), terminal.results("out/again")
    assert len(first) == len(expected) == 9_976
    assert {(r["host"], r["path"]) for r in first} == {(host, path) for host, _, path in expected}
    repeated: Counter[tuple[str, str]] = Counter()
    for (host, _, path), n in expected.items():
        repeated[host, path] += n - 1
    assert Counter((r["host"], r["path"]) for r in again) == +repeated


@pytest.mark.process
@example("terminal", ["socket-wordcount"], indirect=True)
def test_socket_wordcount_goes_on_from_a_checkpoint_and_from_a_savepoint(terminal, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        address = ("-p", f"address=127.0.0.1:{server.getsockname()[1]}")

        # Fed, checkpointed, cancelled without a savepoint …
        running = terminal.start(tmp_path / "first.txt", *address)
        feed(server, "to be", "or not to be")
        wait_for(tmp_path / "first.txt", "('to', 2)", "('be', 2)", "('or', 1)", "('not', 1)")
        terminal("checkpoint")
        terminal("cancel")
        running.wait(60)
        checkpoint = newest_checkpoint(terminal)

        # … and submitted again from chk-N: the counts go on.
        running = terminal.start(tmp_path / "second.txt", *address, "--restore", checkpoint)
        feed(server, "to be")
        wait_for(tmp_path / "second.txt", "('to', 3)", "('be', 3)")

        # Ctrl-C stops with a savepoint, and the same command goes on from it.
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 0
        terminal.start(tmp_path / "third.txt", *address)
        feed(server, "not to be")
        wait_for(tmp_path / "third.txt", "('to', 4)", "('be', 4)", "('not', 2)")
        assert "('to', 1)" not in (tmp_path / "third.txt").read_text()


def newest_checkpoint(terminal: Terminal) -> str:
    """The name of the newest one that the job keeps: chk-N."""
    listed = json.loads(terminal("snapshots", "-o", "json"))
    names: list[str] = [s["name"] for s in listed if s["kind"] == "checkpoint"]
    newest = max(names, key=lambda name: int(name.removeprefix("chk-")))
    assert re.fullmatch(r"chk-\d+", newest)
    return newest


_held: list[socket.socket] = []


@pytest.fixture(autouse=True)
def closed_connections() -> Iterator[None]:
    yield
    while _held:
        _held.pop().close()


def feed(server: socket.socket, *lines: str) -> None:
    """Send lines to the job that connects next, and leave the connection open."""
    connection, _ = server.accept()
    _held.append(connection)
    connection.sendall("".join(f"{line}\n" for line in lines).encode())


def wait_for(file: Path, *texts: str, within_s: float = 60) -> None:
    """Until all these texts were printed."""
    deadline = time.monotonic() + within_s
    while not all(text in file.read_text() for text in texts):
        assert time.monotonic() < deadline, file.read_text()
        time.sleep(0.05)
