"""The CustomResourceDefinitions in `crds/` and in the chart are those that the models give."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FILES = sorted([*(ROOT / "crds").glob("*"), *(ROOT / "helm/penstock/templates/crds").glob("*")])
SIZE_MAX_BYTES = 200_000


def script():
    spec = importlib.util.spec_from_file_location("crds", ROOT / "scripts" / "crds.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_they_are_up_to_date():
    done = subprocess.run(
        [sys.executable, "scripts/crds.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_other_file_lies_beside_them():
    assert sorted(path for path, _ in script().files()) == FILES


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_client_side_apply_can_carry_them(path):
    assert path.stat().st_size < SIZE_MAX_BYTES


@pytest.mark.parametrize("name", ["streamjobs.yaml", "savepoints.yaml"])
def test_the_charts_copy_differs_by_what_keeps_it_on_uninstall(name):
    plain = yaml.safe_load((ROOT / "crds" / name).read_text())
    copy = yaml.safe_load(_resolved((ROOT / "helm/penstock/templates/crds" / name).read_text()))
    assert copy["metadata"]["annotations"].pop("helm.sh/resource-policy") == "keep"
    assert copy == plain


def _resolved(template: str) -> str:
    """Without the lines by which a release may leave it out."""
    begin, end = script().IF_WANTED
    assert template.startswith(begin)
    assert template.endswith(end)
    return template.removeprefix(begin).removesuffix(end)


def test_braces_in_a_description_are_no_instructions_of_the_template():
    text = script().text_in_the_chart({"metadata": {"annotations": {}}, "about": "{{ .Values }}"})
    assert "about: '{{`{{`}} .Values }}'" in text
