"""How fast Flink (Java) does the keyed count that Penstock is measured with, as JSON lines.

    FLINK_VENV=… JAVA_HOME=… python benchmarks/flink.py --keys 10000 --backend rocksdb

Needs a JDK 17 and a virtual environment with apache-flink 2.x, which brings all of Flink's jars. The
rate is the marginal one of two sizes, so that start-up does not count; only ratios of runs made side
by side mean something.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).parent / "peers" / "KeyedCount.java"


def jars(venv: Path) -> str:
    """The class path of the Flink in this virtual environment."""
    found = sorted(venv.glob("lib/python*/site-packages/pyflink/lib"))
    if not found:
        sys.exit(f"no Flink in {venv}\n  do     pip install apache-flink there")
    return f"{found[0]}/*"


def tool(java_home: Path | None, name: str) -> str:
    """The JDK's program of this name."""
    return str(java_home / "bin" / name) if java_home else name


def compiled(javac: str, class_path: str, folder: Path) -> None:
    """Compile the job into a folder."""
    subprocess.run([javac, "-cp", class_path, "-d", str(folder), str(SOURCE)], check=True)


def seconds(java: str, class_path: str, folder: Path, records: int, options: list[str]) -> float:
    """How long one run of the job took, measured inside it."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        done = subprocess.run(
            [
                *(java, "-Xmx4g", "--add-opens=java.base/java.util=ALL-UNNAMED"),
                *("-cp", f"{class_path}:{folder}", "KeyedCount"),
                *(str(records), *options, scratch),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
    found = re.search(r"^SECONDS ([\d.]+)$", done.stdout, re.MULTILINE)
    if found is None:
        sys.exit(f"Flink's job failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return float(found[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    env = os.environ.get
    parser.add_argument("--venv", type=Path, default=env("FLINK_VENV"), help="else $FLINK_VENV")
    parser.add_argument("--java-home", type=Path, default=env("JAVA_HOME"), help="else $JAVA_HOME")
    parser.add_argument("--records", type=int, nargs=2, default=[2_000_000, 6_000_000])
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--backend", choices=["rocksdb", "hashmap"], default="rocksdb")
    parser.add_argument("--parallelism", type=int, default=1)
    parser.add_argument("--checkpoint-ms", type=int, default=10_000, help="0: none")
    parser.add_argument("--rounds", type=int, default=1, help="one line of JSON for each")
    given = parser.parse_args()
    if given.venv is None:
        parser.error("--venv or FLINK_VENV must name the environment with apache-flink")

    class_path = jars(Path(given.venv))
    java_home = Path(given.java_home) if given.java_home else None
    options = [
        *(str(given.keys), given.backend, str(given.parallelism)),
        str(given.checkpoint_ms),
    ]
    with tempfile.TemporaryDirectory(prefix="penstock-flink-") as name:
        folder = Path(name)
        compiled(tool(java_home, "javac"), class_path, folder)
        for _ in range(given.rounds):
            few, many = sorted(given.records)
            took = [
                seconds(tool(java_home, "java"), class_path, folder, records, options)
                for records in (few, many)
            ]
            if took[1] <= took[0]:
                sys.exit(f"{many} records took no longer than {few}: {took}; give larger --records")
            figures = {
                "engine": "flink-java",
                "backend": given.backend,
                "keys": given.keys,
                "parallelism": given.parallelism,
                "checkpoint_ms": given.checkpoint_ms,
                "records": [few, many],
                "seconds": took,
                "records_per_second": round((many - few) / (took[1] - took[0])),
            }
            print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
