"""What the documentation says is so: links, names, generated pages, and every command of some pages."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from tests.pages import Command, blocks, do_as_told

import penstock
from penstock import snapshots, testing
from penstock.cli.root import root
from penstock.runtime.program import built
from penstock.spec.binding import bind
from penstock.spec.loading import validate
from penstock.spec.without_effect import WITHOUT_EFFECT
from penstock_operator.resources import names

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
EXAMPLES = sorted((ROOT / "examples").glob("*/README.md"))
FROM_THE_TUTORIAL_ON = (
    "tutorials/first-job.md",
    "how-to/look-into-state.md",
    "how-to/restore-elsewhere.md",
)
BY_THEMSELVES = ("how-to/write-a-connector.md",)
ON_A_CLUSTER = ("tutorials/kubernetes.md",)
"""Run by tests/e2e/test_tutorial.py."""


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


# ── pages whose commands are run ─────────────────────────────────────────────────────────────────


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A path with `penstock`, and a home of its own; jobs of other tests have other ports."""
    programs = tmp_path / "programs"
    programs.mkdir()
    real = Path(sys.executable).parent / "penstock"
    wrapper = programs / "penstock"
    wrapper.write_text(
        f'#!/bin/sh\nif [ "$1" = run ]; then shift; exec {real} run "$@" --port 0; fi\n'
        f'exec {real} "$@"\n'
    )
    wrapper.chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{programs}:{real.parent}:{os.environ['PATH']}",
        "XDG_STATE_HOME": str(tmp_path / "home"),
        "COLUMNS": "100",
    }


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.timeout(360)
def test_the_tutorial_and_the_pages_that_go_on_from_it_do_what_they_say(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    for page in FROM_THE_TUTORIAL_ON:
        do_as_told(DOCS / page, folder, environment)


@pytest.mark.process
@pytest.mark.parametrize("page", BY_THEMSELVES)
def test_a_page_does_what_it_says(page: str, tmp_path: Path, environment: dict[str, str]) -> None:
    do_as_told(DOCS / page, tmp_path, environment)


def test_what_a_page_shows_is_compared_with_what_is_said() -> None:
    command = Command(1, "penstock status", "visits …\nchk-… 1 s")
    assert command.shows("visits is running\nsince\nchk-12 1 s")
    assert not command.shows("visits is running\nchk-12 2 s")
    assert not command.shows("")


def test_every_page_with_commands_to_run_is_run() -> None:
    with_files = {_name(p) for p in PAGES for b in blocks(p) if b.about.startswith("file=")}
    assert with_files == {
        f"docs/{page}" for page in (*FROM_THE_TUTORIAL_ON, *BY_THEMSELVES, *ON_A_CLUSTER)
    } - {"docs/how-to/restore-elsewhere.md"}


# ── links, names, code ───────────────────────────────────────────────────────────────────────────


def _outside_blocks(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", _outside_blocks(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_no_link_is_dead(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", _outside_blocks(page)):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{_name(page)} links to {target}"
        assert not anchor or anchor in _anchors(linked), f"{_name(page)} links to {target}"


def test_every_page_is_reached_from_the_index() -> None:
    reached, ahead = set[Path](), [DOCS / "index.md"]
    while ahead:
        page = ahead.pop()
        if page in reached or page.suffix != ".md" or not page.exists():
            continue
        reached.add(page)
        links = re.findall(r"\]\(([^)\s#:]+)(?:#[^)]*)?\)", _outside_blocks(page))
        ahead += [(page.parent / link).resolve() for link in links]
    assert {_name(p) for p in DOCS.rglob("*.md")} <= {_name(p) for p in reached}


@pytest.mark.parametrize(
    "page", [DOCS / "architecture.md", *sorted(DOCS.glob("decisions/0*.md"))], ids=_name
)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    operator = ROOT / "operator" / "penstock_operator"
    roots = [ROOT, ROOT / "worker" / "penstock", operator, DOCS]
    named = re.findall(r"`([\w./-]+/(?:[\w.-]+\.(?:py|md|toml|yaml))?)`", _outside_blocks(page))
    assert named or page.name != "architecture.md"
    for path in named:
        assert any((root / path).exists() for root in roots), f"{_name(page)} names {path}"


def test_the_tests_that_the_guarantees_name_exist() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", (DOCS / "guarantees.md").read_text())
    assert len(named) > 15
    for path, test in named:
        text = (ROOT / path).read_text()
        assert not test or re.search(rf"^def {test}\(", text, re.MULTILINE), f"{path}::{test}"


def test_pages_drawn_from_the_code_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/reference.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _reference() -> Any:
    """The script that draws reference pages."""
    spec = importlib.util.spec_from_file_location("reference", ROOT / "scripts" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    return reference


def test_fields_that_are_marked_in_the_manifests_reference_exist() -> None:
    reference = _reference()
    assert {*WITHOUT_EFFECT, *reference.FOR_A_CLUSTER} <= reference.manifest_paths()


def test_every_annotation_that_a_person_writes_is_in_the_reference() -> None:
    page = (DOCS / "reference" / "kubernetes.md").read_text()
    for_us = {
        names.ANNOTATION_HOLD_AT,
        names.ANNOTATION_REQUEST_ID,
        names.ANNOTATION_SCHEMA_VERSION,
    }
    known = {v for n, v in vars(names).items() if n.startswith("ANNOTATION_")}
    assert {name for name in known if f"| `{name}` |" in page} == known - for_us


def test_decisions_are_numbered_without_gaps_and_listed_in_their_order() -> None:
    files = sorted((DOCS / "decisions").glob("0*.md"))
    heads = [re.match(r"# (\d+)\. (.+)", file.read_text()) for file in files]
    told = [(f"{int(head[1]):04}", head[2]) for head in heads if head]
    assert [number for number, _ in told] == [f"{n:04}" for n in range(1, len(files) + 1)]
    listed = re.findall(
        r"^(\d+)\. \[(.+)\]\((\d{4})-", (DOCS / "decisions" / "README.md").read_text(), re.MULTILINE
    )
    assert [(f"{int(number):04}", title) for number, title, _ in listed] == told
    assert [file.name[:4] for file in files] == [prefix for *_, prefix in listed]


def test_every_reason_of_a_condition_is_in_the_runbook() -> None:
    decisions = ROOT / "operator" / "penstock_operator" / "reconcile"
    code = "\n".join(file.read_text() for file in sorted(decisions.rglob("*.py")))
    reasons = set(re.findall(r'(?:Stall|Trouble)\(\s*"(\w+)"', code))
    reasons |= set(re.findall(r'look_at_refusal\(turn, move, "(\w+)"', code))
    assert len(reasons) > 20
    page = (DOCS / "operations" / "kubernetes.md").read_text()
    assert {reason for reason in reasons if f"`{reason}`" in page} == reasons


def test_every_public_name_is_in_the_reference() -> None:
    page = (DOCS / "reference" / "api.md").read_text()
    for module in (penstock, penstock.sources, penstock.sinks, testing, snapshots):
        for name in module.__all__:
            assert f"`{name}`" in page or f"`penstock.{name}" in page, name


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_python_on_a_page_is_python(page: Path) -> None:
    for block in blocks(page):
        if block.language == "python":
            ast.parse(block.text, f"{_name(page)}:{block.line}")


def _code(page: Path) -> str:
    """What a page shows as code, in blocks and within its lines."""
    inline = re.findall(r"`([^`\n]+)`", _outside_blocks(page))
    return "\n".join([*inline, *(block.text for block in blocks(page))])


def _is_known(command: click.Command, words: list[str]) -> bool:
    """Whether a command has the commands and options of those words."""
    if isinstance(command, click.Group):
        named = next((word for word in words if word.islower() and word.isalpha()), None)
        context = click.Context(command)
        below = command.get_command(context, named) if named is not None else None
        if below is not None and named is not None:
            return _is_known(below, words[words.index(named) + 1 :])
        return named is None and all(word in _OF_THE_ROOT for word in words)
    known = {name for parameter in command.params for name in parameter.opts} | {"--help", "-h"}
    options = {word.partition("=")[0] for word in words if re.match("--?[a-z]", word)}
    return options <= known


_OTHER_DOTS = {
    DOCS / "from-flink.md",
    DOCS / "decisions" / "0012-a-committed-end-leaves-sinks-nothing-to-restore.md",
}
"""Fields of Flink's configuration, and attributes in Python."""
_OF_THE_ROOT = {"--help", "--version", "--all", "COMMAND", "…"}


@pytest.mark.parametrize("page", [*PAGES, *EXAMPLES], ids=_name)
def test_every_command_line_that_a_page_shows_exists(page: Path) -> None:
    for line in _code(page).splitlines():
        found = re.match(r"(?:\$ )?(?:[A-Z]+=\$\()?penstock ([^|<>&)#;]*)", line.strip())
        if found is None or " COMMAND " in line:
            continue
        words = found[1].split("   ")[0].split()  # what follows is a remark
        assert _is_known(root, words), f"{_name(page)}: {line}"


@pytest.mark.parametrize(
    "page", [p for p in [*PAGES, *EXAMPLES] if p not in _OTHER_DOTS], ids=_name
)
def test_every_field_of_a_manifest_that_a_page_names_exists(page: Path) -> None:
    paths = set(_reference().manifest_paths())
    parts = {path.partition(".")[0] for path in paths if "." in path}
    named = re.findall(r"`(?:spec\.)?([a-z][A-Za-z]*(?:\.[a-z][A-Za-z]*)+)`", _outside_blocks(page))
    for path in named:
        if path.partition(".")[0] in parts:
            free = any(path.startswith(f"{known}.") for known in _FREE_FORM)
            assert path in paths or free, f"{_name(page)} names {path}"


_FREE_FORM = ("worker.resources", "worker.podTemplate", "coordinator.resources")


def test_manifests_on_pages_are_valid_and_their_scripts_build_a_graph(tmp_path: Path) -> None:
    seen = 0
    for page in PAGES:
        for block in blocks(page):
            if block.language != "yaml" or "kind: StreamJob" not in block.text:
                continue
            seen += 1
            draft = validate(block.text, source=f"{_name(page)}:{block.line}", folder=tmp_path)
            job = draft.complete()
            if job.spec.script is not None:
                built(bind(draft))
    assert seen >= 3


def test_whole_files_of_python_on_pages_are_typed(tmp_path: Path) -> None:
    for page in PAGES:
        for block in blocks(page):
            if block.language == "python" and block.about.startswith("file="):
                (tmp_path / block.about.removeprefix("file=")).write_text(block.text)
            elif block.language == "python" and page.name == "README.md":
                (tmp_path / "readme.py").write_text(block.text)
    files = [file.name for file in tmp_path.glob("*.py")]
    assert "readme.py" in files
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), *files],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(ROOT / "worker")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
