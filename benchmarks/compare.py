"""The keyed count in Penstock and in Flink, in turns, several rounds: a table of median rates.

    PYTHONPATH=worker python benchmarks/compare.py --venv FLINK_VENV --json out.json

On a quiet machine with 2 cores it takes up to --minutes; with --quick, about one. A round runs each
setting in each engine, side by side; the last round ends where time is up, so settings stand in
order of importance. Without --venv only Penstock is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import keyed_count
from flink import Flink
from keyed_count import KeyedCount
from runs import TooClose, end_tidily, said

from penstock.runtime.logs import configure_logging

_FLINKS_NAME = {"RocksDB": "rocksdb", "FileSystem": "hashmap"}
_M = 1_000_000


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table: two sizes for each engine that takes part. `aim` is the ratio to
    Flink in Java that Penstock shall reach."""

    backend: str
    keys: int
    parallelism: int
    records: dict[str, tuple[int, int]]
    aim: float | None = None

    @property
    def work(self) -> str:
        """For people."""
        return f"{self.backend}, {self.keys:,} keys, parallelism {self.parallelism}"


FULL = (
    Setting(
        *("RocksDB", 10_000, 1),
        {"penstock": (2 * _M, 12 * _M), "flink-java": (_M, 3 * _M), "pyflink": (50_000, 200_000)},
        aim=5,
    ),
    Setting("RocksDB", _M, 1, {"penstock": (2 * _M, 5 * _M), "flink-java": (2 * _M, 4 * _M)}, 2),
    Setting("RocksDB", 10_000, 2, {"penstock": (2 * _M, 16 * _M), "flink-java": (_M, 4 * _M)}),
    Setting(
        "FileSystem", 10_000, 1, {"penstock": (2 * _M, 12 * _M), "flink-java": (2 * _M, 8 * _M)}, 1
    ),
    Setting("FileSystem", _M, 1, {"penstock": (2 * _M, 5 * _M), "flink-java": (2 * _M, 6 * _M)}, 1),
    Setting("RocksDB", _M, 2, {"penstock": (2 * _M, 6 * _M), "flink-java": (2 * _M, 5 * _M)}),
)

QUICK = (
    Setting(
        *("RocksDB", 10_000, 1),
        {"penstock": (_M, 4 * _M), "flink-java": (400_000, 1_200_000), "pyflink": (20_000, 80_000)},
        aim=5,
    ),
    Setting("RocksDB", 100_000, 1, {"penstock": (_M, 2 * _M), "flink-java": (400_000, _M)}),
)


class Comparison:
    """The figures so far; `flink` None measures Penstock alone."""

    def __init__(self, settings: Sequence[Setting], flink: Flink | None) -> None:
        self.settings = settings
        self.figures: list[dict[str, Any]] = []
        self._flink = flink
        self._took_s = [0.0] * len(settings)

    def round(self, number: int, until_s: float) -> None:
        """A figure of each setting and engine; what would not end in time is left out."""
        for row, setting in enumerate(self.settings):
            begun_s = time.monotonic()
            if begun_s + self._took_s[row] > until_s:
                said(f"round {number}: no time for {setting.work}")
                continue
            for engine, records in setting.records.items():
                if engine != "penstock" and self._flink is None:
                    continue
                try:
                    found = self._measured(setting, engine, records)
                except TooClose as e:
                    said(f"{engine}, {setting.work}: {e}")
                    continue
                self.figures.append({"round": number, **found})
                said(f"round {number}: {setting.work}: {engine} {found['records_per_second']:,}/s")
            self._took_s[row] = time.monotonic() - begun_s

    def rates(self, setting: Setting, engine: str) -> dict[int, int]:
        """Records per second by round."""
        fields = ("backend", "keys", "parallelism")
        wanted = {"engine": engine, **{name: getattr(setting, name) for name in fields}}
        return {
            found["round"]: found["records_per_second"]
            for found in self.figures
            if wanted.items() <= found.items()
        }

    def _measured(self, setting: Setting, engine: str, records: tuple[int, int]) -> dict[str, Any]:
        if engine == "penstock":
            ours = KeyedCount(
                records=0,
                keys=setting.keys,
                backend=setting.backend,
                parallelism=setting.parallelism,
            )
            return keyed_count.measure(ours, records)
        assert self._flink is not None
        found = self._flink.measure(
            engine,
            records,
            keys=setting.keys,
            backend=_FLINKS_NAME[setting.backend],
            parallelism=setting.parallelism,
            checkpoint_ms=10_000,
        )
        return {**found, "backend": setting.backend}


def table(comparison: Comparison) -> str:
    """Median rates in Markdown; a ratio is the median of those of the rounds."""
    lines = [
        "| backend | keys | parallelism | Penstock | Flink (Java) | PyFlink | to Flink | aim |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for setting in comparison.settings:
        engines = ("penstock", "flink-java", "pyflink")
        ours, java, python = (comparison.rates(setting, engine) for engine in engines)
        ratios = [ours[number] / java[number] for number in ours.keys() & java.keys()]
        cells = [
            *(setting.backend, f"{setting.keys:,}", str(setting.parallelism)),
            *(
                f"{median(rates.values()):,.0f}/s" if rates else ""
                for rates in (ours, java, python)
            ),
            f"{median(ratios):.2f} ×" if ratios else "",
            f"≥ {setting.aim:g} ×" if setting.aim else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def machine(flink: Flink | None) -> dict[str, Any]:
    """What the figures come from."""
    found = {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "rocksdict": version("rocksdict"),
        "load": [round(load, 1) for load in os.getloadavg()],
    }
    return {**found, "flink": flink.version} if flink else found


def _cpu_model() -> str:
    found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    env = os.environ.get
    parser.add_argument("--venv", type=Path, default=env("FLINK_VENV"), help="else $FLINK_VENV")
    parser.add_argument("--java-home", type=Path, default=env("JAVA_HOME"), help="else $JAVA_HOME")
    parser.add_argument("--quick", action="store_true", help="one round of small sizes")
    parser.add_argument("--rounds", type=int, help="default: 3, with --quick 1")
    parser.add_argument("--minutes", type=float, default=11.5, help="nothing is begun beyond")
    parser.add_argument("--records", type=int, nargs=2, help="instead of each setting's own sizes")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    given = parser.parse_args()

    end_tidily()
    configure_logging("plain")
    until_s = time.monotonic() + given.minutes * 60
    settings: tuple[Setting, ...] = QUICK if given.quick else FULL
    if given.records:
        few, many = given.records
        settings = tuple(
            replace(setting, records=dict.fromkeys(setting.records, (few, many)))
            for setting in settings
        )
    with tempfile.TemporaryDirectory(prefix="penstock-flink-") as name:
        java_home = Path(given.java_home) if given.java_home else None
        flink = Flink(Path(given.venv), java_home, Path(name)) if given.venv else None
        here = machine(flink)
        comparison = Comparison(settings, flink)
        for number in range(1, (given.rounds or (1 if given.quick else 3)) + 1):
            comparison.round(number, until_s)
    if given.json:
        body = {"machine": here, "figures": comparison.figures}
        given.json.write_text(json.dumps(body, indent=1) + "\n")
    rounds = max((found["round"] for found in comparison.figures), default=0)
    described = ", ".join(f"{name} {value}" for name, value in here.items())
    print(f"{table(comparison)}\n\nMedians of {rounds} round(s). {described}.")


if __name__ == "__main__":
    main()
