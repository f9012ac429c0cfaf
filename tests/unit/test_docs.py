"""What the documentation says is so: links, names, generated pages, and every command of some pages."""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
FROM_THE_TUTORIAL_ON = (
    "tutorials/first-job.md",
    "how-to/look-into-state.md",
    "how-to/restore-elsewhere.md",
)
BY_THEMSELVES = ("how-to/write-a-connector.md",)
_BETWEEN = "— end of command —"


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


# ── pages whose commands are run ─────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, what follows that, its text, and the line it begins at."""

    language: str
    about: str
    text: str
    line: int


@dataclass(frozen=True)
class Command:
    """A command of a console block, and what the page shows as its output ('…' stands for any)."""

    line: int
    text: str
    output: str

    def shows(self, answer: str) -> bool:
        """Whether that answer is what the page shows; a page may show nothing."""
        if not self.output:
            return True
        pattern = ".*".join(re.escape(part) for part in self.output.split("…"))
        return re.fullmatch(pattern, answer, re.DOTALL) is not None


def _blocks(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for found in re.finditer(r"^```(\w*) ?(.*)\n((?:.*\n)*?)```$", text, re.MULTILINE):
        yield Block(found[1], found[2], found[3], text.count("\n", 0, found.start()) + 1)


def _commands(block: Block) -> Iterator[Command]:
    for found in re.finditer(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block.text, re.MULTILINE):
        line = block.line + 1 + block.text.count("\n", 0, found.start())
        yield Command(line, found[1], found[2].strip())


def _do_as_told(page: Path, folder: Path, environment: dict[str, str]) -> None:
    """Write the page's files (```python file=…) and run its commands in one shell, in its order."""
    commands: list[Command] = []
    script = ["set -o pipefail"]
    for block in _blocks(page):
        if block.about.startswith("file="):
            (folder / block.about.removeprefix("file=")).write_text(block.text)
        elif block.language == "console":
            commands += _commands(block)
    for command in commands:
        script += [command.text, f'echo; echo "{_BETWEEN}$?"']
    done = subprocess.run(
        ["bash"], input="\n".join(script) + "\n", cwd=folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=150, check=False,
    )  # fmt: skip
    answers = re.findall(rf"(.*?)\n{_BETWEEN}(\d+)\n", done.stdout, re.DOTALL)
    for command, (answer, code) in zip(commands, answers, strict=True):
        where = f"{_name(page)}:{command.line}: $ {command.text}"
        assert code == "0", f"{where}\nended with {code} and said\n{answer}"
        assert command.shows(answer.strip()), (
            f"{where}\nsays\n{answer}\nbut the page\n{command.output}"
        )


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
def test_the_tutorial_and_the_pages_that_go_on_from_it_do_what_they_say(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    for page in FROM_THE_TUTORIAL_ON:
        if (DOCS / page).exists():
            _do_as_told(DOCS / page, folder, environment)
