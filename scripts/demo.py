"""`make demo`: counts Shakespeare's words with two workers, kills one with SIGKILL on the way, and
compares the result with a plain count.

Everything lies in the fresh folder `demo/` afterwards: the job, its manifest, results, checkpoints and
a savepoint. `penstock run demo/streamjob.yaml` is all that is done here, by the same code.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from penstock.cli.coordinator import Coordinator, find, new_request_id
from penstock.cli.places import shown
from penstock.cli.running import run
from penstock.core.errors import PenstockError
from penstock.runtime.logs import get_logger
from penstock.spec.orders import JobPhase, JobStatus, SavepointOrder

ROOT = Path(__file__).resolve().parent.parent
INPUT = ROOT / "examples" / "data" / "shakespeare.txt"
DEMO = ROOT / "demo"
NAME = "demo"
LINES_PER_SECOND = 4000
KILL_AT_CHECKPOINT = 3
TOP = 10
PATIENCE_S = 60.0

JOB = '''\
"""How often does each word occur in the files? Read slowly, so that there is something to watch."""

import re

import penstock
from penstock import sinks, sources
from penstock.formats import Json


def words(line: str) -> list[str]:
    return re.findall(r"[a-z']+", line.lower())


def job(env: penstock.Environment, *, input: str, output: str, lines_per_second: float) -> None:
    lines = env.source(
        sources.Files(input, per_second=lines_per_second), uid="lines", parallelism=1
    )
    counts = lines.flat_map(words).key_by(lambda word: word).count(uid="counts", emit="end")
    counts.sink(sinks.Files(output, Json()), uid="out")
'''

MANIFEST = f"""\
apiVersion: penstock.dev/v1alpha1
kind: StreamJob
metadata: {{name: {NAME}}}
spec:
  entrypoint: wordcount:job
  parameters:
    input: ../{INPUT.relative_to(ROOT)}
    output: out
    lines_per_second: {LINES_PER_SECOND}
  parallelism: 2
  state: {{backend: RocksDB}}
  checkpoints: {{interval: 1s}}
"""

log = get_logger()


class Trouble(threading.Thread):
    """Kills a worker once some checkpoints are complete, and takes a savepoint when the job runs
    again."""

    def __init__(self) -> None:
        super().__init__(name="trouble", daemon=True)
        self.killed: int | None = None
        self.savepoint: str | None = None

    def run(self) -> None:
        """Until it is done, or the job has ended."""
        try:
            coordinator = _coordinator()
            status = _wait(coordinator, lambda s: _checkpoint(s) >= KILL_AT_CHECKPOINT)
            self.killed = _worker_process(1)
            log.warning("kill -9", worker=1, pid=self.killed, after=f"chk-{_checkpoint(status)}")
            os.kill(self.killed, signal.SIGKILL)
            status = _wait(
                coordinator, lambda s: s.attempt > status.attempt and s.phase is JobPhase.RUNNING
            )
            log.warning("running again", attempt=status.attempt)
            order = SavepointOrder(request_id=new_request_id())
            self.savepoint = coordinator.order("savepoints", order).path
        except (PenstockError, LookupError, TimeoutError) as e:
            log.error("the demo could not do its mischief", reason=str(e))


def main() -> int:
    """Run the demo; 0 when the result is right although a worker was killed."""
    if DEMO.exists():
        shutil.rmtree(DEMO)
    DEMO.mkdir()
    (DEMO / "wordcount.py").write_text(JOB)
    (DEMO / "streamjob.yaml").write_text(MANIFEST)
    os.chdir(ROOT)
    trouble = Trouble()
    trouble.start()
    code = run("demo/streamjob.yaml")
    if code != 0:
        return code
    counted = _results()
    if not counted:
        print("\nStopped before its end: there are no results yet.")
        return 0
    return _compare(counted, trouble)


def _compare(counted: Counter[str], trouble: Trouble) -> int:
    plain = Counter(re.findall(r"[a-z']+", INPUT.read_text().lower()))
    print(f"\n  {'word':<8}{'Penstock':>10}{'plain Python':>14}")
    for word, count in plain.most_common(TOP):
        print(f"  {word:<8}{counted[word]:>10,}{count:>14,}")
    is_equal = counted == plain
    verdict = "equals" if is_equal else "DIFFERS FROM"
    print(
        f"\n{len(counted):,} words, {counted.total():,} counted: the result {verdict} a plain count "
        "made without Penstock,"
    )
    was_killed = trouble.killed is not None
    print(
        "although a worker was killed on the way."
        if was_killed
        else "but no worker was killed: the job was too fast, or could not be reached."
    )
    print("\n  results      demo/out/")
    print("  checkpoints  demo/state/checkpoints/demo/    penstock snapshots demo/state")
    if trouble.savepoint is not None:
        path = shown(trouble.savepoint)
        print(f"  savepoint    {path}\n")
        print(f"  look inside  penstock state get {path} counts total the")
    return 0 if is_equal and was_killed else 1


def _results() -> Counter[str]:
    counted: Counter[str] = Counter()
    for file in sorted((DEMO / "out").glob("*.jsonl")):
        for line in file.read_text().splitlines():
            word, count = json.loads(line)
            counted[word] += count
    return counted


def _coordinator() -> Coordinator:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            return find(NAME, None)
        except PenstockError:
            time.sleep(0.1)
    raise TimeoutError("the job did not start")


def _wait(coordinator: Coordinator, is_so: object) -> JobStatus:
    assert callable(is_so)
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        status = coordinator.status()
        if is_so(status):
            return status
        if status.phase.is_end:
            raise LookupError("the job has ended")
        time.sleep(0.05)
    raise TimeoutError("it took too long")


def _checkpoint(status: JobStatus) -> int:
    return 0 if status.last_checkpoint is None else status.last_checkpoint.id


def _worker_process(worker: int) -> int:
    """The process of a worker that this process has started."""
    for pid, parent, command in _processes():
        if parent == os.getpid() and f"supervisor --worker {worker} " in command:
            return pid
    raise LookupError(f"no process of worker {worker} was found")


def _processes() -> Iterator[tuple[int, int, str]]:
    """Process id, parent and command of all processes: from /proc, elsewhere from ps."""
    if Path("/proc/self/stat").exists():
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                stat = (folder / "stat").read_text()
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:  # it has ended meanwhile
                continue
            yield int(folder.name), int(stat.rpartition(")")[2].split()[1]), command
        return
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,command="], capture_output=True, text=True, check=True
    )
    for line in listed.stdout.splitlines():
        pid, parent, command = line.split(None, 2)
        yield int(pid), int(parent), command


if __name__ == "__main__":
    sys.exit(main())
