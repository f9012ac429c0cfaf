"""Processes that import before they are told what to do."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from penstock.runtime.local_processes import LocalProcesses
from penstock.runtime.warm import Told, WarmProcess, warmed

DEADLINE_S = 30.0
MODULE = """
import json, os, sys
from pathlib import Path

def main():
    print("to stderr", file=sys.stderr)
    Path("seen.json").write_text(json.dumps({
        "arguments": sys.argv[1:],
        "first_path": sys.path[0],
        "word": os.environ.get("A_WORD"),
        "stdin": sys.stdin.read(),
        "session": os.getsid(0) == os.getpid(),
    }))
    return 7

if __name__ == "__main__":
    sys.exit(main())
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "wanted.py").write_text(MODULE)
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    return "wanted"


def exit_code(tmp_path: Path, module: str, warm: list[WarmProcess]) -> int:
    """Keep one process, which ends by itself; its exit code."""

    async def kept() -> int:
        codes = asyncio.get_running_loop().create_future()
        with (tmp_path / "stderr").open("wb") as stderr:
            processes = LocalProcesses(
                tmp_path,
                {**os.environ, "A_WORD": "told"},
                is_final=lambda *_: True,
                gave_up=lambda death: codes.set_result(death.code),
                stderr=stderr,
                warm=warm,
            )
            try:
                await processes.keep("it", module, "--flag", "a value")
                return int(await asyncio.wait_for(codes, DEADLINE_S))
            finally:
                await processes.end()

    return asyncio.run(kept())


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)
    raise AssertionError(f"process {pid} lives")


@pytest.mark.parametrize("is_warm", [True, False])
def test_a_warm_process_is_what_a_new_one_would_have_been(
    tmp_path: Path, module: str, is_warm: bool
) -> None:
    with warmed(*[module] if is_warm else []) as warm:
        pids = [process.pid for process in warm]
        assert exit_code(tmp_path, module, warm) == 7
        assert warm == [], "each is taken once"
    assert json.loads((tmp_path / "seen.json").read_text()) == {
        "arguments": ["--flag", "a value"],
        "first_path": str(tmp_path),
        "word": "told",
        "stdin": "",
        "session": True,
    }
    assert (tmp_path / "stderr").read_text() == "to stderr\n"
    for pid in pids:
        wait_until_gone(pid)


def test_a_warm_process_that_died_meanwhile_is_replaced(tmp_path: Path, module: str) -> None:
    with warmed(module) as warm:
        os.kill(warm[0].pid, signal.SIGKILL)
        os.waitid(os.P_PID, warm[0].pid, os.WEXITED | os.WNOWAIT)
        assert exit_code(tmp_path, module, warm) == 7


def test_a_warm_process_that_is_told_nothing_ends_with_the_block(module: str) -> None:
    with warmed(module) as warm:
        [pid] = [process.pid for process in warm]
        os.kill(pid, 0)
    wait_until_gone(pid)


def test_a_warm_process_ends_with_the_one_who_started_it(module: str) -> None:
    code = (
        "from penstock.runtime.warm import WarmProcess\n"
        f"print(WarmProcess({module!r}).pid, flush=True)\n"
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    parent = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        stdout=subprocess.PIPE,
        text=True,
        timeout=DEADLINE_S,
    )
    assert parent.returncode == -signal.SIGKILL
    wait_until_gone(int(parent.stdout))


def test_a_told_process_ends_with_the_one_who_told_it(tmp_path: Path) -> None:
    """The pipe to the parent reaches it, though it was started before there was one."""
    (tmp_path / "modules" / "lasting.py").write_text(
        "import time\n"
        "from pathlib import Path\n"
        "from penstock.runtime.pdeathsig import PARENT_PIPE_VARIABLE, die_with_parent\n"
        "import os\n"
        "def main():\n"
        "    assert os.fstat(int(os.environ[PARENT_PIPE_VARIABLE]))\n"
        "    die_with_parent()\n"
        "    Path('ready').write_text(str(os.getpid()))\n"
        "    time.sleep(600)\n"
        "if __name__ == '__main__':\n"
        "    main()\n"
    )

    async def told() -> int:
        reading, writing = os.pipe()
        process = WarmProcess("lasting")
        process.tell(Told((), str(tmp_path), dict(os.environ)), parent_pipe=reading, stderr=2)
        deadline = time.monotonic() + DEADLINE_S
        while not (tmp_path / "ready").exists():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        os.close(writing)
        return await asyncio.wait_for(process.wait(), DEADLINE_S)

    assert asyncio.run(told()) == -signal.SIGKILL
