"""The manifests of the examples are right, and their jobs can be called with their parameters."""

import sys
from pathlib import Path

import pytest

from penstock.spec.binding import bind
from penstock.spec.loading import read_manifest

EXAMPLES = Path(__file__).parents[3] / "examples"
MANIFESTS = sorted(EXAMPLES.glob("*/streamjob.yaml"))


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda p: p.parent.name)
def test_the_manifest_of_an_example_has_no_mistake(path):
    before, modules = list(sys.path), set(sys.modules)
    try:
        bound = bind(read_manifest(path))
    finally:
        sys.path[:] = before
        for name in set(sys.modules) - modules:
            file = getattr(sys.modules[name], "__file__", None) or ""
            if Path(file).is_relative_to(EXAMPLES):
                del sys.modules[name]
    assert bound.manifest.metadata.name == path.parent.name
    assert bound.folder == path.parent
    if "input" in bound.arguments:
        assert (bound.folder / bound.arguments["input"]).is_file()


def test_there_are_examples():
    assert {p.parent.name for p in MANIFESTS} >= {"wordcount", "socket-wordcount", "deduplicate"}
