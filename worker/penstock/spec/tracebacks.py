"""The author's own lines of a traceback, as a person wants to read them: none of ours."""

from __future__ import annotations

import inspect
import linecache
import sysconfig
import traceback
from pathlib import Path

from penstock.core.errors import PenstockError

_OURS = Path(__file__).parent.parent
_PYTHONS = Path(sysconfig.get_path("stdlib"))
_INSTALLED = Path(sysconfig.get_path("purelib"))
_FRAMES_SHOWN = 10
_RAISED_SHOWN = 600


def author_lines(
    error: BaseException, folder: Path, *, of_libraries: bool = True
) -> tuple[str, ...]:
    """Where `error` was raised, in frames outside of Penstock, the innermost last.

    Two lines a frame (`File "weblog.py", line 25, in parse` and the source, indented by two); files
    below `folder` are told relative to it. When any frame lies there, those of Python itself and of
    installed packages around it are left out, but for the innermost one. Of many frames, as of an
    endless recursion, the outermost and the innermost are told. Where none is the author's there are
    those of libraries, if they are wanted.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return _syntax_lines(error, folder)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if _is_authors(f)]
    if any(not _is_library(f) for f in frames):
        innermost = frames[-1]
        frames = [f for f in frames if f is innermost or not _is_library(f)]
    elif not of_libraries or isinstance(error, PenstockError | SyntaxError):
        frames = []  # the last two say themselves what is wrong
    left_out = len(frames) - _FRAMES_SHOWN
    lines = []
    for i, frame in enumerate(frames):
        if 0 <= i - _FRAMES_SHOWN // 2 < left_out:
            if i == _FRAMES_SHOWN // 2:
                lines.append(f"… {left_out} more …")
            continue
        name = _told(frame.filename, folder)
        lines.append(f'File "{name}", line {frame.lineno}, in {frame.name}')
        if frame.line:
            lines.append(f"  {frame.line}")
    return tuple(lines)


def definition_lines(function: object, folder: Path) -> tuple[str, ...]:
    """Where the author wrote a function, in the same two lines; none when it is not the author's."""
    code = getattr(inspect.unwrap(function) if callable(function) else None, "__code__", None)
    if code is None or Path(code.co_filename).is_relative_to(_OURS):
        return ()
    name = _told(code.co_filename, folder)
    source = linecache.getline(code.co_filename, code.co_firstlineno).strip()
    head = f'File "{name}", line {code.co_firstlineno}, in {code.co_name}'
    return (head, f"  {source}") if source else (head,)


def raised(error: BaseException) -> str:
    """The exception in one line that any terminal can show: `ValueError: not in combined log format`."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg}"
    told, *_ = traceback.format_exception_only(error)
    line = " ".join(told.split())
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line[: _RAISED_SHOWN + 1])
    return (
        line
        if len(line) <= _RAISED_SHOWN
        else f"{line[:_RAISED_SHOWN]}… (of {len(told):,} characters)"
    )


def _is_authors(frame: traceback.FrameSummary) -> bool:
    path = Path(frame.filename)
    return not frame.filename.startswith("<frozen ") and not path.is_relative_to(_OURS)


def _is_library(frame: traceback.FrameSummary) -> bool:
    path = Path(frame.filename)
    return path.is_relative_to(_PYTHONS) or path.is_relative_to(_INSTALLED)


def _told(filename: str, folder: Path) -> str:
    path = Path(filename)
    root = folder.resolve()
    if path.is_absolute() and path.resolve().is_relative_to(root):
        return str(path.resolve().relative_to(root))
    return filename


def _syntax_lines(error: SyntaxError, folder: Path) -> tuple[str, ...]:
    head = f'File "{_told(error.filename or "", folder)}", line {error.lineno}'
    if not error.text:
        return (head,)
    source = error.text.rstrip("\n")
    indent = len(source) - len(source.lstrip())
    caret = max((error.offset or 1) - 1 - indent, 0)
    return head, f"  {source.strip()}", f"  {' ' * caret}^"
