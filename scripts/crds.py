"""Writes the CustomResourceDefinitions that are drawn from the models: `crds/` and the chart's copies.

With `--check` it writes nothing, says which are out of date, and ends with 1 if any is.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from penstock_operator.resources import crd

ROOT = Path(__file__).resolve().parent.parent
PLAIN = ROOT / "crds"
IN_THE_CHART = ROOT / "helm" / "penstock" / "templates" / "crds"
HEAD = "# Drawn from the models by scripts/crds.py: change those, not this.\n"
KEPT_ON_UNINSTALL = {"helm.sh/resource-policy": "keep"}
IF_WANTED = ("{{- if .Values.crds.enabled }}\n", "{{- end }}\n")

DEFINITIONS = {"streamjobs.yaml": crd.streamjobs, "savepoints.yaml": crd.savepoints}


class _Dumper(yaml.SafeDumper):
    """Without anchors: the same value twice is written twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def text_of(definition: dict[str, Any]) -> str:
    """A definition as a file."""
    text = yaml.dump(definition, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return HEAD + text


def text_in_the_chart(definition: dict[str, Any]) -> str:
    """The same as a template: a release may leave it out, it stays when the release goes, and its own
    braces are no instructions."""
    kept = copy.deepcopy(definition)
    kept["metadata"]["annotations"] |= KEPT_ON_UNINSTALL
    return _without_instructions(text_of(kept)).join(IF_WANTED)


def _without_instructions(text: str) -> str:
    return "{{`{{`}}".join(text.split("{{"))


def files() -> Iterator[tuple[Path, str]]:
    """Every file and its text."""
    for name, definition in DEFINITIONS.items():
        yield PLAIN / name, text_of(definition())
        yield IN_THE_CHART / name, text_in_the_chart(definition())


def out_of_date() -> list[tuple[Path, str]]:
    """Those that are not as they would be written now."""
    return [(path, t) for path, t in files() if not path.exists() or path.read_text() != t]


def main() -> int:
    """Write the files, or check them."""
    old = out_of_date()
    if "--check" in sys.argv[1:]:
        for path, _ in old:
            print(f"{path.relative_to(ROOT)} is out of date; run scripts/crds.py")
        return 1 if old else 0
    for path, text in old:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        print(f"{path.relative_to(ROOT)} written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
