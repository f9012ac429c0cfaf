"""Pages of the documentation whose commands are run: what they show is what is said."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

_BETWEEN = "— end of command —"


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


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page."""
    text = page.read_text()
    for found in re.finditer(r"^```(\w*) ?(.*)\n((?:.*\n)*?)```$", text, re.MULTILINE):
        yield Block(found[1], found[2], found[3], text.count("\n", 0, found.start()) + 1)


def commands_of(block: Block) -> Iterator[Command]:
    for found in re.finditer(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block.text, re.MULTILINE):
        line = block.line + 1 + block.text.count("\n", 0, found.start())
        yield Command(line, found[1], found[2].strip())


def do_as_told(
    page: Path, folder: Path, environment: dict[str, str], *, patience_s: float = 100
) -> None:
    """Write the page's files (```python file=…) and run its commands in one shell, in its order."""
    commands: list[Command] = []
    script = ["set -o pipefail"]
    for block in blocks(page):
        if block.about.startswith("file="):
            (folder / block.about.removeprefix("file=")).write_text(block.text)
        elif block.language == "console":
            commands += commands_of(block)
    for command in commands:
        script += [command.text, f'echo; echo "{_BETWEEN}$?"']
    said = _in_one_shell("\n".join(script) + "\n", folder, environment, patience_s)
    answers = re.findall(rf"(.*?)\n{_BETWEEN}(\d+)\n", said, re.DOTALL)
    for command, (answer, code) in zip(commands, answers, strict=True):
        where = f"{page.name}:{command.line}: $ {command.text}"
        assert code == "0", f"{where}\nended with {code} and said\n{answer}"
        assert command.shows(answer.strip()), (
            f"{where}\nsays\n{answer}\nbut the page\n{command.output}"
        )


def _in_one_shell(script: str, folder: Path, environment: dict[str, str], patience_s: float) -> str:
    """What the shell and its commands say; nothing that it started lives on."""
    shell = subprocess.Popen(
        ["bash"],
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        return shell.communicate(script, timeout=patience_s)[0]
    except subprocess.TimeoutExpired as e:
        said = (e.stdout or b"").decode() + "".join(
            f"\n{log.name}: {log.read_text()}" for log in sorted(folder.parent.rglob("*.log"))
        )
        pytest.fail(f"not within {patience_s:.0f} s; so far\n{said}")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)
        shell.wait()
