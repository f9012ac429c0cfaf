"""`penstock run` and the commands about running jobs, as a person types them, with real processes."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import penstock
from penstock.cli.coordinator import find
from penstock.core.errors import PenstockError

pytestmark = pytest.mark.process

WORDS = ["to", "be", "or", "not", "to", "be", "that", "is", "the", "question"]
LINES = 3000
SOURCES = str(Path(penstock.__file__).parents[1])

JOB = """
import penstock
from penstock import formats, sinks, sources


def check(line: str) -> str:
    if line == "poison":
        raise ValueError("no good")
    if line == "stuck":
        time.sleep(600)
    return line


def job(
    env: penstock.Environment, *, input: str = "in.txt", output: str = "out", rate: float = 1e9
) -> None:
    lines = env.source(sources.Files(input, per_second=rate), uid="lines", parallelism=1)
    words = lines.map(check).flat_map(str.split)
    counts = words.key_by(lambda word: word).count(uid="counts", emit="end")
    counts.sink(sinks.Files(output, formats.Json()), uid="out")
"""

MANIFEST = """\
apiVersion: penstock.dev/v1alpha1
kind: StreamJob
metadata: {name: counting}
spec:
  entrypoint: counting:job
  parallelism: 2
  restart: {strategy: FixedDelay, delay: 10ms, attempts: 5}
  checkpoints: {interval: 300ms}
"""


class Terminal:
    """A folder with a job, a registry of its own, and the command line."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")},
            "PYTHONPATH": SOURCES,
            "XDG_STATE_HOME": str(folder / "registry"),
        }
        self._started: list[subprocess.Popen[str]] = []
        (folder / "counting.py").write_text(JOB)
        (folder / "streamjob.yaml").write_text(MANIFEST)
        (folder / "in.txt").write_text("".join(" ".join(WORDS) + "\n" for _ in range(LINES)))

    def __call__(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "penstock", *arguments],
            cwd=self.folder, env=self.env | env, capture_output=True, text=True, timeout=120,
            check=False,
        )  # fmt: skip

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `penstock run` on the job and leave it running."""
        process = subprocess.Popen(
            [sys.executable, "-m", "penstock", "run", "streamjob.yaml", "--port", "0", *arguments],
            cwd=self.folder, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._started.append(process)
        return process

    def slowly(self, *arguments: str) -> subprocess.Popen[str]:
        """Start it so slow that it is still running when it is looked at."""
        return self.start("-p", "rate=20", *arguments)

    def running(self, checkpoint: int = 1) -> None:
        """Wait for that checkpoint."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(PenstockError):
                last = find("counting", None).status().last_checkpoint
                if last is not None and last.id >= checkpoint:
                    return
            time.sleep(0.05)
        pytest.fail(f"no checkpoint {checkpoint} within a minute")

    def counted(self) -> Counter[str]:
        """What the sink's files say."""
        found: Counter[str] = Counter()
        for file in (self.folder / "out").glob("*.jsonl"):
            for line in file.read_text().splitlines():
                word, count = json.loads(line)
                found[word] += count
        return found

    def end(self) -> None:
        """Leave nothing behind."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.communicate()


EXPECTED = Counter({word: n * LINES for word, n in Counter(WORDS).items()})


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    made = Terminal(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", made.env["XDG_STATE_HOME"])
    yield made
    made.end()


def test_a_bounded_job_ends_with_its_results_and_is_not_counted_again(terminal):
    first = terminal("run", "streamjob.yaml", "--port", "0")
    assert first.returncode == 0, first.stderr
    head, empty, results, checkpoint, look = first.stdout.splitlines()
    assert re.fullmatch(
        r"counting finished in .*: 3,000 records in, 8 out, 0 failed, 0 restarts\.", head
    )
    assert empty == ""
    assert results.split()[:3] == ["results", "out/", "2"]
    assert checkpoint.split()[:2] == ["checkpoint", look.split()[-1]]
    assert terminal.counted() == EXPECTED
    inside = terminal(*look.split()[3:])  # what "look inside" says
    assert (inside.returncode, inside.stderr) == (0, "")
    assert "counts    key" in inside.stdout
    value = terminal("state", "get", look.split()[-1], "counts", "total", '"be"')
    assert value.stdout == f"{2 * LINES}\n"

    again = terminal("run", "streamjob.yaml", "--port", "0")
    assert again.returncode == 0
    assert again.stdout.startswith("counting already finished, ")
    for_programs = terminal("run", "streamjob.yaml", "--port", "0", "-o", "json")
    assert json.loads(for_programs.stdout)["ended"] == "already finished"
    assert terminal.counted() == EXPECTED
    assert "Traceback" not in first.stderr + again.stderr


def test_ctrl_c_stops_with_a_savepoint_and_the_line_it_prints_resumes(terminal):
    running = terminal.slowly()
    terminal.running()
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 0, err
    assert "Stopping with a savepoint (Ctrl-C again to cancel without) …" in err
    savepoint = next(line.split()[1] for line in out.splitlines() if "savepoint  " in line)
    assert (terminal.folder / savepoint / "_metadata").is_file()
    resume = next(line for line in out.splitlines() if line.strip().startswith("resume"))
    assert resume.split() == ["resume", "penstock", "run", "streamjob.yaml", "-p", "rate=20"]
    resumed = terminal("run", "streamjob.yaml", "--port", "0", "-n", "3")
    assert resumed.returncode == 0, resumed.stderr
    assert terminal.counted() == EXPECTED
    listed = json.loads(terminal("snapshots", "-o", "json").stdout)
    stop = next(s for s in listed if s["kind"] == "savepoint")
    assert savepoint.endswith(stop["name"])


def test_a_second_ctrl_c_cancels_a_job_that_cannot_stop(terminal):
    lines = (terminal.folder / "in.txt").read_text().splitlines()
    (terminal.folder / "in.txt").write_text("\n".join([*lines[:20], "stuck", *lines[20:], ""]))
    running = terminal.slowly()
    terminal.running()
    running.send_signal(signal.SIGINT)
    assert running.stderr is not None
    for line in running.stderr:
        if line.startswith("Stopping with a savepoint"):
            break
    running.send_signal(signal.SIGINT)
    out, _ = running.communicate(timeout=60)
    assert running.returncode == 130
    assert out.startswith("counting is cancelled, without a savepoint.\n")
    assert "  resume  " in out


def test_commands_about_a_running_job_print_paths_and_tables(terminal):
    running = terminal.slowly("--log", "json")
    terminal.running()
    listed = json.loads(terminal("list", "-o", "json").stdout)
    assert [(job["name"], job["pid"]) for job in listed] == [("counting", running.pid)]
    assert terminal("list").stdout.splitlines()[1].startswith("counting  Running")
    page = terminal("status", "counting").stdout
    assert page.startswith("counting · running ")
    assert "  counts  " in page
    assert re.search(r"^  lag +\d+ files?, .* to read", page, re.MULTILINE), page
    assert re.search(r"^  checkpoint  chk-\d+ .* · \d+ kept", page, re.MULTILINE), page

    checkpoint = terminal("checkpoint").stdout.strip()
    assert re.fullmatch(r"state/checkpoints/counting/chk-\d+", checkpoint)
    savepoint = terminal("savepoint", "--id", "mine").stdout.strip()
    assert (terminal.folder / savepoint / "_metadata").is_file()
    assert terminal("savepoint", "--id", "mine").stdout.strip() == savepoint
    assert terminal("state", "verify", savepoint).returncode == 0

    none = terminal("stop", "other")
    assert none.returncode == 2
    assert "no job other runs on this machine" in none.stderr
    twice = terminal("run", "streamjob.yaml", "--port", "0")
    assert (twice.returncode, twice.stdout) == (2, "")
    assert "counting runs on this machine already" in twice.stderr

    stopped = terminal("stop")
    assert stopped.returncode == 0, stopped.stderr
    assert (terminal.folder / stopped.stdout.strip() / "_metadata").is_file()
    out, err = running.communicate(timeout=60)
    assert running.returncode == 0
    assert "resume" in out
    assert all(json.loads(line) for line in err.splitlines() if line.startswith("{"))


def test_orders_want_the_jobs_token(terminal):
    running = terminal.slowly()
    terminal.running()
    (job,) = json.loads(terminal("list", "-o", "json").stdout)
    address = job["url"].removeprefix("http://")
    assert json.loads(terminal("status", "-m", address, "-o", "json").stdout)["phase"] == "Running"
    missing = terminal("stop", "-m", address)
    assert missing.returncode == 2
    assert "error: the job's token is missing" in missing.stderr
    wrong = terminal("cancel", "-m", address, PENSTOCK_TOKEN="guess")
    assert wrong.returncode == 2
    assert "error: the job's token is wrong" in wrong.stderr
    assert running.poll() is None
    cancelled = terminal("cancel")
    assert cancelled.returncode == 0, cancelled.stderr
    out, _ = running.communicate(timeout=60)
    assert running.returncode == 0
    assert out.startswith("counting is cancelled, without a savepoint.\n")


def test_a_killed_run_leaves_no_process_and_the_next_one_goes_on(terminal):
    running = terminal.slowly()
    terminal.running(checkpoint=2)
    running.kill()
    running.communicate()
    deadline = time.monotonic() + 30
    while _processes_in(terminal.folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _processes_in(terminal.folder) == []
    assert terminal("list", "-o", "json").stdout == "[]\n"
    resumed = terminal("run", "streamjob.yaml", "--port", "0")
    assert resumed.returncode == 0, resumed.stderr
    assert terminal.counted() == EXPECTED
    assert "3,000 records in" not in resumed.stdout  # it did not begin from the start


def test_a_record_that_always_raises_is_told_with_its_line_and_the_exit_code_is_1(terminal):
    with (terminal.folder / "in.txt").open("a") as file:
        file.write("poison\n")
    failed = terminal("run", "streamjob.yaml", "--port", "0")
    assert (failed.returncode, failed.stdout) == (1, "")
    text = failed.stderr[failed.stderr.index("error: ") :]
    assert text.startswith("error: operator check raised ValueError: no good\n")
    assert "  record    'poison'\n" in text
    assert "  from      lines: in.txt, line 3,001\n" in text
    assert 'File "counting.py", line' in text
    assert 'raise ValueError("no good")' in text
    assert "Traceback" not in failed.stderr


def test_what_cannot_start_says_why(terminal):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        answer = terminal("run", "streamjob.yaml", "--port", port)
        assert (answer.returncode, answer.stdout) == (2, "")
        assert f"error: port {port} is taken\n" in answer.stderr
    (terminal.folder / "file").write_text("")
    answer = terminal("run", "streamjob.yaml", "--port", "0", "--storage", "file")
    assert (answer.returncode, answer.stdout) == (2, "")
    assert "\nerror: " in f"\n{answer.stderr}"
    assert "Traceback" not in answer.stderr
    answer = terminal("run", "streamjob.yaml", "--port", "0", "--restore", "chk-7")
    assert (answer.returncode, answer.stdout) == (2, "")
    assert "chk-7 is not a checkpoint that counting keeps" in answer.stderr


def _processes_in(folder: Path) -> list[str]:
    found = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            text = command.read_bytes().replace(b"\0", b" ").decode()
            if str(folder) in text and "penstock" in text:
                found.append(text)
    return found
