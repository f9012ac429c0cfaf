"""What the images install is what the packages ask for, each file named by its hash."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
WORKER = ROOT / "worker" / "requirements.lock"
OPERATOR = ROOT / "operator" / "requirements.lock"
PINNED = re.compile(r"^([a-z0-9-]+)==(\S+) \\$", re.MULTILINE)

IMPORT_EVERYTHING = """
import importlib, pkgutil, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1:]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
import penstock_operator
for module in pkgutil.walk_packages(penstock_operator.__path__, "penstock_operator."):
    importlib.import_module(module.name)
"""


def locked(file: Path) -> dict[str, str]:
    """Names and versions of a lock."""
    return dict(PINNED.findall(file.read_text()))


def asked_for() -> tuple[list[Requirement], list[Requirement]]:
    """What pyproject.toml asks for: always, and for the Kubernetes operator."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    operator = project["optional-dependencies"]["operator"]
    return [Requirement(x) for x in project["dependencies"]], [Requirement(x) for x in operator]


def test_the_worker_image_has_all_that_the_package_needs() -> None:
    versions = locked(WORKER)
    for wanted in asked_for()[0]:
        assert wanted.specifier.contains(versions[canonicalize_name(wanted.name)]), wanted


def test_the_operator_image_has_versions_that_fit_where_it_has_the_package() -> None:
    versions = locked(OPERATOR)
    always, operator = asked_for()
    assert {canonicalize_name(x.name) for x in operator} <= versions.keys()
    for wanted in always + operator:
        if version := versions.get(canonicalize_name(wanted.name)):
            assert wanted.specifier.contains(version), wanted


def test_both_images_have_the_same_versions() -> None:
    worker, operator = locked(WORKER), locked(OPERATOR)
    assert {n: operator[n] for n in worker.keys() & operator.keys()} == {
        n: worker[n] for n in worker.keys() & operator.keys()
    }


def test_the_operator_image_has_no_database_and_no_object_store() -> None:
    assert not {"rocksdict", "boto3", "botocore"} & locked(OPERATOR).keys()


def test_the_operator_can_be_imported_with_nothing_but_what_its_image_has() -> None:
    there = locked(OPERATOR).keys() | {"penstock"}
    absent = [
        module
        for module, distributions in packages_distributions().items()
        if not {canonicalize_name(d) for d in distributions} & there
    ]
    assert {"boto3", "rocksdict"} <= set(absent)
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_EVERYTHING, *absent],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("file", [WORKER, OPERATOR], ids=["worker", "operator"])
def test_every_file_is_named_by_its_hash_and_none_by_its_host(file: Path) -> None:
    text = file.read_text()
    assert "://" not in text
    blocks = re.split(r"^(?=[a-z0-9-]+==)", text, flags=re.MULTILINE)[1:]
    assert len(blocks) == len(locked(file))
    assert all("--hash=sha256:" in block for block in blocks)
