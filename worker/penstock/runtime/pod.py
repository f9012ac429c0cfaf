"""What a process of a job finds in its surroundings: by flags on a laptop, by fixed places in a pod.

Without `--manifest` a process takes itself to be in a pod. Each place can be moved by a variable of
the environment. Nothing here needs a home directory or a name for the user.
"""

from __future__ import annotations

import os
import re
import signal
from dataclasses import dataclass
from pathlib import Path

from penstock.core.errors import Rejected
from penstock.core.ids import WorkerId

MANIFEST_VARIABLE = "PENSTOCK_MANIFEST"
TOKEN_VARIABLE = "PENSTOCK_TOKEN"  # noqa: S105  (the variable's name)
TOKEN_FILE_VARIABLE = "PENSTOCK_TOKEN_FILE"  # noqa: S105
FOLDER_VARIABLE = "PENSTOCK_FOLDER"
VOLUME_VARIABLE = "PENSTOCK_VOLUME"
COORDINATOR_VARIABLE = "PENSTOCK_COORDINATOR"
NAMESPACE_VARIABLE = "PENSTOCK_NAMESPACE"
OWNER_VARIABLE = "PENSTOCK_OWNER"
REVISION_VARIABLE = "PENSTOCK_REVISION"
POD_IP_VARIABLE = "PENSTOCK_POD_IP"
LOG_VARIABLE = "PENSTOCK_LOG"

LOCALHOST = "127.0.0.1"
_MANIFEST = "/etc/penstock/streamjob.yaml"
_TOKEN_FILE = "/etc/penstock/token"  # noqa: S105
_FOLDER = "/job"
_VOLUME = "/var/lib/penstock"
_ORDINAL = re.compile(r"-(\d+)$")
_LOG_STYLES = ("plain", "json")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where a process is. `host` is what it listens on; `address` is what others reach it by, None
    when they see that themselves."""

    is_pod: bool
    manifest: Path
    host: str
    address: str | None
    log: str


def surroundings(manifest: Path | None, *, host: str | None = None) -> Surroundings:
    """Those of a process that was started with these flags; None is one that was not given.

    Raises:
        Rejected: PENSTOCK_LOG is no style of log lines.
    """
    is_pod = manifest is None
    address = os.environ.get(POD_IP_VARIABLE) or None
    everywhere = "::" if ":" in (address or "") else "0.0.0.0"  # noqa: S104  who is reached is shown a proof
    log = os.environ.get(LOG_VARIABLE) or ("json" if is_pod else "plain")
    if log not in _LOG_STYLES:
        raise Rejected(
            f"{log!r} is no style of log lines",
            where=f"environment variable {LOG_VARIABLE}",
            fix=f"set it to {' or '.join(_LOG_STYLES)}",
        )
    return Surroundings(
        is_pod=is_pod,
        manifest=manifest or manifest_file(),
        host=host or (everywhere if is_pod else LOCALHOST),
        address=address,
        log=log,
    )


def manifest_file() -> Path:
    """The manifest of the pod."""
    return Path(os.environ.get(MANIFEST_VARIABLE) or _MANIFEST)


def job_folder() -> Path:
    """Where the author's modules are, in a pod. An image whose code is installed needs none."""
    folder = Path(os.environ.get(FOLDER_VARIABLE) or _FOLDER)
    return folder if folder.is_dir() else Path.cwd()


def volume() -> Path:
    """The disk of a worker's pod."""
    return Path(os.environ.get(VOLUME_VARIABLE) or _VOLUME)


def token() -> str:
    """The job's token, from the environment or the pod's file.

    Raises:
        Rejected: there is none.
    """
    file = Path(os.environ.get(TOKEN_FILE_VARIABLE) or _TOKEN_FILE)
    found = os.environ.get(TOKEN_VARIABLE, "")
    if not found:
        try:
            found = file.read_text().strip()
        except FileNotFoundError:
            found = ""
        except (OSError, UnicodeDecodeError) as e:
            raise Rejected(
                f"the job's token cannot be read: {e}",
                where=str(file),
                fix=f"let user {os.getuid()} read it; it is one line of text",
            ) from e
    if not found:
        raise Rejected(
            "there is no token for the job",
            where=f"environment variable {TOKEN_VARIABLE}, file {file}",
            fix="give coordinator and workers the same secret",
        )
    return found


def ordinal(host_name: str) -> WorkerId:
    """The worker's number, which a StatefulSet puts at the end of its pods' host names.

    Raises:
        Rejected: there is none at its end.
    """
    found = _ORDINAL.search(host_name.partition(".")[0])
    if found is None:
        raise Rejected(
            f"the host name {host_name!r} does not end with the worker's number",
            where="penstock worker",
            fix="run it in a pod of a StatefulSet, or give --worker N",
        )
    return WorkerId(int(found[1]))


def coordinator_address(text: str | None) -> tuple[str, int]:
    """HOST:PORT of the flag, else of the environment.

    Raises:
        Rejected: neither is given, or it is not HOST:PORT.
    """
    given = text or os.environ.get(COORDINATOR_VARIABLE) or ""
    host, _, port = given.rpartition(":")
    if not host or not port.isdigit():
        raise Rejected(
            f"{given!r} is not the coordinator's HOST:PORT" if given else "no coordinator is named",
            where="--coordinator" if text else f"environment variable {COORDINATOR_VARIABLE}",
            fix="write it as in wordcount-coordinator:6123",
        )
    return host.strip("[]"), int(port)


def end_at_sigterm() -> None:
    """End this process when it is asked to, as long as it has nothing to finish.

    The first process of a container has no default for signals: unhandled, they are ignored. Not by
    an exception: the author's code is being called, and may catch it.
    """
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
