"""How fast Flink does the keyed count that Penstock is measured with, as JSON lines.

    python benchmarks/flink.py --venv … --keys 10000 --backend rocksdb

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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runs import TooClose, end_tidily, marginal, output_of

PEERS = Path(__file__).parent / "peers"


class Flink:
    """A Flink to measure: the Java job compiled into `folder`, or the Python one.

    `venv` is a virtual environment with apache-flink.
    """

    def __init__(self, venv: Path, java_home: Path | None, folder: Path) -> None:
        found = sorted(venv.glob("lib/python*/site-packages/pyflink"))
        if not found:
            sys.exit(f"no Flink in {venv}\n  do     pip install apache-flink there")
        self._venv = venv
        self._packages = found[0].parent
        self._java_home = java_home
        self._class_path = f"{found[0]}/lib/*"
        self._folder = folder
        source = str(PEERS / "KeyedCount.java")
        javac = (self._tool("javac"), "-cp", self._class_path, "-d", str(folder), source)
        subprocess.run(javac, check=True)

    @property
    def version(self) -> str:
        """Flink's."""
        names = [path.name for path in self._packages.glob("apache_flink-*.dist-info")]
        return names[0].split("-")[1].removesuffix(".dist") if names else "unknown"

    def measure(
        self,
        engine: str,
        records: Sequence[int],
        *,
        keys: int,
        backend: str,
        parallelism: int,
        checkpoint_ms: int,
    ) -> dict[str, Any]:
        """The marginal rate of `flink-java` or `pyflink`; PyFlink's state is in RocksDB.

        Raises:
            TooClose: the sizes are too small.
        """

        def seconds(count: int) -> float:
            if engine == "pyflink":
                return self._python(count, keys, parallelism, checkpoint_ms)
            return self._java(count, keys, backend, parallelism, checkpoint_ms)

        return {
            "engine": engine,
            "backend": backend,
            "keys": keys,
            "parallelism": parallelism,
            "checkpoint_ms": checkpoint_ms,
            **marginal(seconds, records),
        }

    def _java(self, *options: object) -> float:
        return self._seconds(
            [
                *(self._tool("java"), "-Xmx4g", "--add-opens=java.base/java.util=ALL-UNNAMED"),
                *("-cp", f"{self._class_path}:{self._folder}", "KeyedCount", *map(str, options)),
            ],
            {},
        )

    def _python(self, *options: object) -> float:
        env = {"PYTHONPATH": str(self._packages)}  # thread mode finds its modules by nothing else
        if self._java_home:
            env["JAVA_HOME"] = str(self._java_home)
        script = str(PEERS / "keyed_count_pyflink.py")
        return self._seconds([str(self._venv / "bin" / "python"), script, *map(str, options)], env)

    def _seconds(self, command: list[str], env: dict[str, str]) -> float:
        """How long a job took, measured inside it."""
        with tempfile.TemporaryDirectory(dir=self._folder) as scratch:
            out, err = output_of([*command, scratch], env)
        found = re.search(r"^SECONDS ([\d.]+)$", out, re.MULTILINE)
        if found is None:
            sys.exit(f"Flink's job failed:\n{out[-2000:]}\n{err[-4000:]}")
        return float(found[1])

    def _tool(self, name: str) -> str:
        return str(self._java_home / "bin" / name) if self._java_home else name


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    env = os.environ.get
    parser.add_argument("--venv", type=Path, default=env("FLINK_VENV"), help="else $FLINK_VENV")
    parser.add_argument("--java-home", type=Path, default=env("JAVA_HOME"), help="else $JAVA_HOME")
    parser.add_argument("--engine", choices=["flink-java", "pyflink"], default="flink-java")
    parser.add_argument("--records", type=int, nargs=2, default=[2_000_000, 6_000_000])
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--backend", choices=["rocksdb", "hashmap"], default="rocksdb")
    parser.add_argument("--parallelism", type=int, default=1)
    parser.add_argument("--checkpoint-ms", type=int, default=10_000, help="0: none")
    parser.add_argument("--rounds", type=int, default=1, help="one line of JSON for each")
    given = parser.parse_args()
    if given.venv is None:
        parser.error("--venv or FLINK_VENV must name the environment with apache-flink")

    end_tidily()
    java_home = Path(given.java_home) if given.java_home else None
    with tempfile.TemporaryDirectory(prefix="penstock-flink-") as name:
        flink = Flink(Path(given.venv), java_home, Path(name))
        for _ in range(given.rounds):
            try:
                figures = flink.measure(
                    given.engine,
                    given.records,
                    keys=given.keys,
                    backend=given.backend,
                    parallelism=given.parallelism,
                    checkpoint_ms=given.checkpoint_ms,
                )
            except TooClose as e:
                sys.exit(f"{e}; give larger --records")
            print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
