"""Wrong input on the real command line: a sentence that says what, where and what to do, the exit code
that belongs to it, no traceback of ours, and what was there before is still there."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import penstock

SOURCES = str(Path(penstock.__file__).parents[1])

JOBS = """
import os
import sys

import penstock
from penstock import formats, sinks, sources


def lines(env):
    return env.source(sources.Files("in.txt"), uid="lines")


def stumble(line):
    if "bad" in line:
        raise ValueError("no good")
    return line


class Keep(penstock.KeyedFunction):
    seen = penstock.ValueState(int, default=0)

    def process(self, line, ctx):
        self.seen.value += 1
        yield line


class Mistaken(Keep):
    def process(self, line, ctx):
        self.seen.value = "three"


class Shout:
    suffix = ".txt"

    def encode(self, line):
        return stumble(line).upper().encode()


def good(env, *, input: str = "in.txt", factor: int = 1):
    found = env.source(sources.Files(input), uid="lines")
    found.key_by(str).process(Keep(), uid="keep").sink(
        sinks.Files("out", formats.Json()), uid="out"
    )


def needs_input(env, *, input: str):
    good(env, input=input)


def leaves(env):
    sys.exit(3)


def twice_the_same_uid(env):
    lines(env).sink(sinks.Print(), uid="lines")


def another_graph_in_each_process(env):
    env.source(sources.Files("in.txt"), uid=f"lines-{os.getpid()}").sink(sinks.Print(), uid="out")


def map_raises(env):
    lines(env).map(stumble).sink(sinks.Print(), uid="out")


def map_leaves(env):
    lines(env).map(lambda line: sys.exit(4) if "bad" in line else line).sink(
        sinks.Print(), uid="out"
    )


def key_is_a_list(env):
    lines(env).key_by(lambda line: [line]).process(Keep(), uid="keep").sink(
        sinks.Print(), uid="out"
    )


def state_of_another_type(env):
    lines(env).key_by(str).process(Mistaken(), uid="keep").sink(sinks.Print(), uid="out")


def format_raises(env):
    lines(env).sink(sinks.Files("out", Shout()), uid="out")


def not_json(env):
    env.source(sources.Files("in.txt", formats.Json()), uid="lines").sink(sinks.Print(), uid="out")


def output_is_a_file(env):
    lines(env).sink(sinks.Files("in.txt", formats.Text()), uid="out")
"""


@dataclass
class Folder:
    """A folder with jobs, and the command line in it."""

    path: Path

    def __call__(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        own = {k: v for k, v in os.environ.items() if not k.startswith(("PENSTOCK_", "AWS_"))}
        own |= {"PYTHONPATH": SOURCES, "XDG_STATE_HOME": str(self.path / "registry")}
        return subprocess.run(
            [sys.executable, "-m", "penstock", *arguments],
            cwd=self.path,
            env=own | env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def run(self, job: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """`penstock run` of one of the jobs, at its first failure at an end."""
        (self.path / "streamjob.yaml").write_text(
            "apiVersion: penstock.dev/v1alpha1\n"
            "kind: StreamJob\n"
            "metadata: {name: wrong}\n"
            "spec:\n"
            f"  entrypoint: {job}\n"
            "  restart: {strategy: None}\n"
        )
        return self("run", "streamjob.yaml", "--port", "0", *arguments, **env)

    def is_untouched(self) -> bool:
        """Whether no job was begun here."""
        return not (self.path / "state" / "checkpoints" / "wrong" / "log").exists()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    (tmp_path / "jobs.py").write_text(JOBS)
    (tmp_path / "in.txt").write_text("one\ntwo\na bad one\nthree\n")
    return Folder(tmp_path)


def assert_told(answer: subprocess.CompletedProcess[str], code: int, *parts: str) -> None:
    assert answer.returncode == code, answer
    assert "Traceback" not in answer.stdout + answer.stderr
    assert "error: " in answer.stderr
    for part in parts:
        assert part in answer.stderr, answer.stderr


def test_all_mistakes_of_a_manifest_are_told_at_once_with_their_lines(folder):
    (folder.path / "bad.yaml").write_text(
        "apiVersion: penstock.dev/v1alpha1\n"
        "kind: StreamJob\n"
        "metadata: {name: wrong}\n"
        "spec:\n"
        "  entrypoint: jobs:good\n"
        "  parameters: {inptu: x, factor: many}\n"
        "  paralellism: 2\n"
        "  checkpoints: {interval: 10 seconds}\n"
    )
    assert_told(
        folder("run", "bad.yaml"),
        2,
        "bad.yaml has 4 mistakes; nothing was started",
        "line 7  spec.paralellism",
        "did you mean parallelism?",
        "line 8  spec.checkpoints.interval",
        "line 6  spec.parameters.inptu",
        '"many" is not a whole number',
    )


BEFORE_ANYTHING_STARTS = {
    "nowhere:good": (2, "there is no module nowhere", "modules there: broken, jobs"),
    "jobs:god": (2, "there is no function god in jobs.py", "did you mean good?"),
    "jobs:needs_input": (2, "input", "is missing; needs_input() in jobs.py needs it (str)"),
    "jobs:leaves": (2, "leaves() raised SystemExit: 3", 'File "jobs.py"', "sys.exit(3)"),
    "jobs:twice_the_same_uid": (2, "two operators have the uid lines", "jobs.py:"),
    "broken:job": (2, "importing broken raised SyntaxError", 'File "broken.py", line 1'),
    "leaving:job": (2, "importing leaving raised SystemExit: 7", "sys.exit(7)"),
}


@pytest.mark.parametrize("job", BEFORE_ANYTHING_STARTS)
def test_a_job_that_cannot_be_built_is_refused(folder, job):
    (folder.path / "broken.py").write_text("def job(:\n")
    (folder.path / "leaving.py").write_text("import sys\nsys.exit(7)\n")
    code, *parts = BEFORE_ANYTHING_STARTS[job]
    assert_told(folder.run(job), code, *parts)
    assert folder.is_untouched()


def test_storage_that_cannot_be_used_is_refused_before_anything_starts(folder):
    (folder.path / "taken").write_text("a file")
    answer = folder.run("jobs:good", "--storage", "taken")
    assert_told(answer, 2, f"where  {folder.path}/taken", "move what stands in the way")

    nobody = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_MAX_ATTEMPTS": "1"}
    answer = folder.run(
        "jobs:good", "--storage", "s3://b/c", AWS_ENDPOINT_URL="http://127.0.0.1:9", **nobody
    )
    assert_told(answer, 3, "S3 did not answer", "where  s3://b/c/", "AWS_ENDPOINT_URL")


def test_a_port_in_use_and_a_closed_state_home_are_refused(folder):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        assert_told(folder.run("jobs:good", "--port", port), 2, f"port {port} is taken", "--port")
    (folder.path / "file").write_text("")
    answer = folder.run("jobs:good", XDG_STATE_HOME=str(folder.path / "file"))
    assert_told(answer, 2, "running jobs cannot be noted", "set XDG_STATE_HOME")
    assert folder.is_untouched()


WHILE_RUNNING = {
    "map_raises": (
        "stumble",
        "'a bad one'",
        "lines: in.txt, line 3",
        'raise ValueError("no good")',
    ),
    "map_leaves": ("SystemExit: 4", "'a bad one'", "lines: in.txt, line 3", "subtask 0 of 1"),
    "key_is_a_list": ("list cannot be a key", "keep (process", "'one'", "key_by(lambda line:"),
    "state_of_another_type": ("state seen is declared int", "'three' (str)", "in process", "keep"),
    "format_raises": ("out (sink", "record    'a bad one'", "line 3", 'File "jobs.py"'),
    "not_json": ("a line is not Json", "in.txt, line 1", "correct the line"),
    "output_is_a_file": ("Not a folder", "in.txt", "choose another folder"),
    "another_graph_in_each_process": ("job() built another graph here", "make it deterministic"),
}


@pytest.mark.parametrize("job", WHILE_RUNNING)
def test_a_failure_names_operator_record_place_and_the_authors_line(folder, job):
    answer = folder.run(f"jobs:{job}")
    assert_told(answer, 1, *WHILE_RUNNING[job], "penstock run streamjob.yaml")


def test_a_format_without_a_repr_is_the_same_graph_in_every_process(folder):
    (folder.path / "in.txt").write_text("one\n")
    assert folder.run("jobs:format_raises").returncode == 0
    assert [file.read_text() for file in (folder.path / "out").glob("*.txt")] == ["ONE\n"]


def test_a_snapshot_that_is_damaged_or_too_narrow_is_refused_and_goes_on_when_mended(folder):
    assert folder.run("jobs:good").returncode == 0
    answer = folder.run("jobs:good", "-n", "200")
    assert_told(answer, 2, "above the job's max parallelism, which is 128", "give at most 128")

    (metadata,) = (folder.path / "state" / "checkpoints" / "wrong").glob("chk-*/_metadata")
    whole = metadata.read_bytes()
    metadata.chmod(0o600)
    metadata.write_bytes(whole[:-9])
    assert_told(folder.run("jobs:good"), 4, str(metadata), "nothing was changed")
    metadata.write_bytes(whole)

    assert_told(folder.run("jobs:good", "--restore", "chk-99"), 2, "chk-99", "kept are: chk-1")
    answer = folder.run("jobs:good")
    assert (answer.returncode, "already finished" in answer.stdout) == (0, True)
    lines = [line for f in (folder.path / "out").iterdir() if f.is_file() for line in f.open()]
    assert sorted(map(json.loads, lines)) == ["a bad one", "one", "three", "two"]


def test_a_flipped_bit_in_a_file_of_state_ends_the_run_with_4_and_the_evidence_stays(folder):
    texts = folder.path / "in"
    texts.mkdir()
    (texts / "a.txt").write_text("one\ntwo\n")
    run = ("jobs:good", "-p", "input=in/*.txt")
    assert folder.run(*run).returncode == 0
    (texts / "b.txt").write_text("two\nthree\n")
    shutil.rmtree(folder.path / "state" / "local")
    checkpoints = folder.path / "state" / "checkpoints"
    [file] = [p for p in (checkpoints / "wrong" / "shared").iterdir() if p.is_file()]
    file.chmod(0o600)
    whole = file.read_bytes()
    file.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    damaged = _content_of(checkpoints / "wrong", but="log")

    assert_told(folder.run(*run), 4, f"{file.name} is damaged", "checksum", "evidence is kept")
    assert _content_of(checkpoints / "wrong", but="log") == damaged
    file.write_bytes(whole)
    assert folder.run(*run).returncode == 0
    lines = [line for f in (folder.path / "out").iterdir() if f.is_file() for line in f.open()]
    assert sorted(map(json.loads, lines)) == ["one", "three", "two", "two"]


def test_a_flipped_bit_in_the_log_ends_the_run_with_4_and_nothing_is_written(folder):
    assert folder.run("jobs:good").returncode == 0
    state = folder.path / "state"
    newest = max((state / "checkpoints" / "wrong" / "log").iterdir())
    newest.chmod(0o600)
    whole = newest.read_bytes()
    assert b'"nextCheckpoint": 1,' in whole
    newest.write_bytes(whole.replace(b'"nextCheckpoint": 1,', b'"nextCheckpoint": 3,'))
    before = _content_of(state, but="local")

    damaged = "an entry of the job's log is damaged", f"{newest}\n", "put the object back"
    assert_told(folder.run("jobs:good"), 4, *damaged, "--restore SAVEPOINT")
    assert_told(folder.run("jobs:good", "--restore", "chk-1"), 4, *damaged)
    assert_told(folder("snapshots"), 4, *damaged)
    assert_told(folder("gc", "--grace", "0s", "--delete"), 4, *damaged)
    assert _content_of(state, but="local") == before

    newest.write_bytes(whole)
    answer = folder.run("jobs:good")
    assert (answer.returncode, "already finished" in answer.stdout) == (0, True)


def _content_of(folder: Path, *, but: str) -> dict[str, bytes]:
    files = (p for p in folder.rglob("*") if p.is_file() and p.parent.name != but)
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}
