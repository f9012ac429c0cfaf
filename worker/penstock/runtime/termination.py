"""Last words: why a process ended, for those who see no more of a pod than its termination message.

Kubernetes keeps at most 4 KiB of the file and shows them in the pod's status: no right to read logs
is needed.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from penstock.core.errors import PenstockError
from penstock.runtime.logs import get_logger
from penstock.spec.mistakes import InvalidManifest

log = get_logger()

FILE_VARIABLE = "PENSTOCK_TERMINATION_LOG"
BYTES_MAX = 4096
_FILE = "/dev/termination-log"
_CUT = "…"


def error_body(error: PenstockError) -> dict[str, Any]:
    """An error in its parts."""
    return {
        "what": error.what,
        "where": error.table if isinstance(error, InvalidManifest) else error.where,
        "fix": error.fix,
        "exitCode": error.exit_code,
    }


def unexpected(error: Exception) -> PenstockError:
    """An error that nobody foresaw, as a sentence."""
    return PenstockError(
        f"unexpected {type(error).__name__}: {error}",
        where="Penstock itself; this should not happen",
        fix="report it with the traceback in the pod's log",
    )


def tell(error: PenstockError) -> None:
    """Write why the process ends to its log, and to whoever looks at its pod."""
    body = error_body(error)
    log.error(body["what"], where=body["where"], fix=body["fix"])
    leave(body)


def leave(body: Mapping[str, Any]) -> None:
    """Write the message where Kubernetes looks for it; elsewhere there is nobody to read it."""
    named = os.environ.get(FILE_VARIABLE)
    file = Path(named or _FILE)
    # On a laptop nobody makes it, and only root could.
    if named or (file.is_file() and os.access(file, os.W_OK)):
        with contextlib.suppress(OSError):
            file.write_text(fitting(body) + "\n")


def fitting(body: Mapping[str, Any], *, bytes_max: int = BYTES_MAX - 1) -> str:
    """The body as JSON of at most so many bytes: the longest texts and lists are cut until it fits."""
    told = dict(body)
    while (excess_bytes := _size(told) - bytes_max) > 0:
        name = max(
            (k for k, v in told.items() if isinstance(v, str | list)), key=lambda k: _size(told[k])
        )
        told[name] = _shorter(told[name], excess_bytes)
    return _json(told)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _size(value: Any) -> int:
    return len(_json(value).encode())


def _shorter(value: str | list[Any], excess_bytes: int) -> str | list[Any]:
    """At most halved: another value may be the longest by then."""
    assert len(value) > len(_CUT), value
    half = len(value) // 2
    if isinstance(value, list):
        return value[:half]
    size_bytes = _size(value)
    kept = len(value) * (size_bytes - excess_bytes) // size_bytes - 2 * len(_CUT)
    return value[: max(half - len(_CUT), kept)] + _CUT
