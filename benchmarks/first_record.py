"""How long `penstock run` takes from its start to the first record in the author's function.

    PYTHONPATH=worker python benchmarks/first_record.py [--runs 7]

Each run starts in a fresh folder, at parallelism 1. Python's bytecode is cached, as it is from the
second run after an installation on; a first run, which is not counted, fills the cache. Prints JSON:
seconds of every run and the least of them, which is what this machine can do when nothing else runs,
and the CPU seconds of a whole run.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

from runs import end_tidily, output_of

_JOB = """
import time
from pathlib import Path

import penstock
from penstock import formats, sinks, sources


def job(env: penstock.Environment, *, seen: str) -> None:
    path = Path(seen)

    def tell(line: str) -> str:
        if not path.exists():
            path.write_text(str(time.monotonic()))
        return line

    lines = env.source(sources.Files("in.txt"), uid="lines")
    lines.map(tell).sink(sinks.Files("out", formats.Text()), uid="out")
"""


def first_record_s(backend: str, bytecode: str) -> tuple[float, float]:
    """Seconds to the first record, and CPU seconds of all processes of the run."""
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name:
        folder = Path(name)
        (folder / "first_job.py").write_text(_JOB)
        (folder / "in.txt").write_text("a record\n" * 10)
        seen = folder / "seen"
        manifest = {
            "apiVersion": "penstock.dev/v1alpha1",
            "kind": "StreamJob",
            "metadata": {"name": "first-record"},
            "spec": {
                "entrypoint": "first_job:job",
                "parameters": {"seen": str(seen)},
                "state": {"backend": backend},
            },
        }
        (folder / "streamjob.json").write_text(json.dumps(manifest))
        command = [sys.executable, "-m", "penstock", "run", str(folder / "streamjob.json")]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        begun_s = time.monotonic()
        out, err = output_of(
            command, {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": bytecode}
        )
        if not seen.exists():
            raise SystemExit(f"the job saw no record:\n{out}{err}")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return float(seen.read_text()) - begun_s, cpu_s


def main() -> None:
    end_tidily()
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--backend", default="RocksDB")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as bytecode:
        first_s, _ = first_record_s(flags.backend, bytecode)
        found = [first_record_s(flags.backend, bytecode) for _ in range(flags.runs)]
    seconds = [took for took, _ in found]
    print(
        json.dumps(
            {
                "least_s": round(min(seconds), 2),
                "without_bytecode_s": round(first_s, 2),
                "seconds": [round(took, 2) for took in seconds],
                "cpu_s_of_a_run": round(min(cpu for _, cpu in found), 2),
                "cores": os.cpu_count(),
                "load": [round(load, 1) for load in os.getloadavg()],
                "python": sys.version.split()[0],
            }
        )
    )


if __name__ == "__main__":
    main()
