"""The author's function: found by `module:function` in a folder, or made from the manifest's script.

Whatever fails is said in a sentence with the author's own lines, never with a traceback of ours.
"""

from __future__ import annotations

import importlib
import inspect
import linecache
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

from penstock.core.errors import PenstockError, Rejected
from penstock.spec.mistakes import nearest
from penstock.spec.tracebacks import author_lines, raised

Job: TypeAlias = Callable[..., None]
"""`job(env, *, ...)`, as the author wrote it."""

SCRIPT_MODULE = "job"
SCRIPT_FILE = "job.py"


def load_job(entrypoint: str, folder: Path) -> Job:
    """The function `module:function`, with `folder` first on `sys.path`, where it stays.

    A module of that name that was imported from another place is imported again. Raises Rejected.
    """
    module_name, _, function_name = entrypoint.partition(":")
    return _function(_import(module_name, folder), function_name, f"{module_name}.py")


def load_script(script: str, folder: Path) -> Job:
    """The function `job` of the script, which becomes the module `job`. Raises Rejected."""
    _put_on_path(folder)
    module = ModuleType(SCRIPT_MODULE)
    module.__file__ = SCRIPT_FILE
    sys.modules[SCRIPT_MODULE] = module
    # Without a time of change the cache never looks for the file; tracebacks then show the script.
    linecache.cache[SCRIPT_FILE] = (
        len(script),
        None,
        script.splitlines(keepends=True),
        SCRIPT_FILE,
    )
    try:
        exec(compile(script, SCRIPT_FILE, "exec"), module.__dict__)  # noqa: S102  (the author's code)
    except PenstockError:
        raise
    except (Exception, SystemExit) as e:
        raise _import_raised("the script", e, folder) from e
    if not hasattr(module, "job"):
        raise Rejected("there is no function job in the script", fix="name the function job")
    return _function(module, "job", "the script")


def file_name(job: Job) -> str:
    """The file of the author's function, as sentences call it: `wordcount.py`."""
    code = getattr(inspect.unwrap(job), "__code__", None) or getattr(
        type(job).__call__, "__code__", None
    )
    return Path(code.co_filename).name if code else str(getattr(job, "__module__", "?"))


def _put_on_path(folder: Path) -> None:
    root = str(folder.resolve())
    if root in sys.path:
        sys.path.remove(root)
    sys.path.insert(0, root)


def _import(name: str, folder: Path) -> ModuleType:
    _put_on_path(folder)
    _forget_another(name, folder.resolve())
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except PenstockError:
        raise
    except ModuleNotFoundError as e:
        if e.name is not None and (name == e.name or name.startswith(f"{e.name}.")):
            raise _no_module(name, folder) from e
        raise _import_raised(name, e, folder) from e
    except (Exception, SystemExit) as e:  # sys.exit() in it would end this process without a word
        raise _import_raised(name, e, folder) from e


def _forget_another(name: str, folder: Path) -> None:
    """Lets the folder's own module be imported where one of its name is known from elsewhere."""
    top = name.partition(".")[0]
    known = sys.modules.get(top)
    own = next(
        (p for p in (folder / f"{top}.py", folder / top / "__init__.py") if p.is_file()), None
    )
    if known is None or own is None or getattr(known, "__file__", None) == str(own):
        return
    if top in sys.stdlib_module_names or top == "penstock":
        owner = "Penstock" if top == "penstock" else "Python"
        raise Rejected(
            f"{own.name} cannot be imported: {owner} itself has a module {top}",
            where=str(own),
            fix="give the file another name",
        )
    for loaded in [m for m in sys.modules if m == top or m.startswith(f"{top}.")]:
        del sys.modules[loaded]


def _no_module(name: str, folder: Path) -> Rejected:
    modules = sorted(p.stem for p in folder.glob("*.py"))
    near = nearest(name, modules)
    fix = f"did you mean {near}?" if near else None
    if fix is None and modules:
        fix = f"modules there: {', '.join(modules[:8])}"
    return Rejected(f"there is no module {name} in {folder.resolve()}", fix=fix)


def _import_raised(what: str, error: BaseException, folder: Path) -> Rejected:
    lines = author_lines(error, folder, of_libraries=False)
    fix = None
    if isinstance(error, ModuleNotFoundError) and error.name:
        fix = f"install it, or put {error.name.partition('.')[0]}.py into {folder.resolve()}"
    return Rejected(
        f"importing {what} raised {raised(error)}", where="\n".join(lines) or None, fix=fix
    )


def _function(module: ModuleType, name: str, file: str) -> Job:
    try:
        found: Any = getattr(module, name)
    except AttributeError as e:
        functions = [
            n
            for n, value in vars(module).items()
            if inspect.isfunction(value) and value.__module__ == module.__name__
        ]
        near = nearest(name, functions)
        fix = f"did you mean {near}?" if near else None
        if fix is None and functions:
            fix = f"functions there: {', '.join(functions[:8])}"
        raise Rejected(f"there is no function {name} in {file}", fix=fix) from e
    if isinstance(found, type):
        raise Rejected(f"{name} in {file} is a class, not a function")
    if not callable(found):
        raise Rejected(f"{name} in {file} is not a function but of type {type(found).__name__}")
    function: Job = found
    return function
