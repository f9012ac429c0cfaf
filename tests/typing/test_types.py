"""What job authors' type checkers see, against the package itself."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES = sorted(f for f in Path(__file__).parent.glob("*.py") if not f.name.startswith("test_"))


def test_mypy_infers_and_refuses_what_authors_are_promised(tmp_path):
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path)]
    files = [str(f.relative_to(ROOT)) for f in FILES]
    done = subprocess.run([*command, *files], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {f.name for f in FILES} >= {"rejected.py", "states.py", "streams.py"}
