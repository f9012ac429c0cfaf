"""Every name in the object store is built here, and nowhere else.

Paths are relative to the storage's root, with forward slashes: `<job>/…` under the checkpoints'
root, `savepoint-…/…` under the savepoints'.
"""

from __future__ import annotations

import hashlib
import re

from penstock.core.ids import AttemptNumber, CheckpointId, JobId, SubtaskId

METADATA = "_metadata"
_LOG_DIGITS = 20
_CHECKPOINT = re.compile(r"chk-(\d+)")


def log_folder(job: JobId) -> str:
    """Where the job's log lies, with a slash at the end."""
    return f"{job}/log/"


def log_entry(job: JobId, seq: int) -> str:
    """The entry with that number."""
    return f"{log_folder(job)}{seq:0{_LOG_DIGITS}}.json"


def log_seq(path: str) -> int | None:
    """The number of a log entry's path, None for any other name."""
    name = path.rpartition("/")[2]
    digits = name.removesuffix(".json")
    return int(digits) if name.endswith(".json") and digits.isdigit() else None


def checkpoint_folder(job: JobId, checkpoint: CheckpointId) -> str:
    """Folder of one checkpoint's own files, with a slash at the end."""
    return f"{job}/chk-{checkpoint}/"


def checkpoint_metadata(job: JobId, checkpoint: CheckpointId) -> str:
    """The manifest of a checkpoint."""
    return checkpoint_folder(job, checkpoint) + METADATA


def checkpoint_of(path: str) -> CheckpointId | None:
    """The number in a path that goes through a `chk-<n>` folder."""
    for part in path.split("/"):
        if found := _CHECKPOINT.fullmatch(part):
            return CheckpointId(int(found[1]))
    return None


def _file(attempt: AttemptNumber, checkpoint: CheckpointId, subtask: SubtaskId, nonce: str) -> str:
    return f"{attempt}-{checkpoint}-{subtask.operator}-{subtask.index}-{nonce}"


def private_file(
    job: JobId, attempt: AttemptNumber, checkpoint: CheckpointId, subtask: SubtaskId, nonce: str
) -> str:
    """A file of one checkpoint alone; never named like one of another attempt."""
    return checkpoint_folder(job, checkpoint) + _file(attempt, checkpoint, subtask, nonce)


def shared_folder(job: JobId) -> str:
    """Where immutable files lie that several checkpoints use, with a slash at the end."""
    return f"{job}/shared/"


def shared_file(job: JobId, attempt: AttemptNumber, checkpoint: CheckpointId, nonce: str) -> str:
    """A shared file; its name says who uploaded it, so that a sweep can tell whose it is."""
    return f"{shared_folder(job)}{attempt}-{checkpoint}-{nonce}"


def savepoint_folder(job: JobId, request_id: str) -> str:
    """Folder of the savepoint that this request makes, with a slash at the end: told beforehand."""
    return f"savepoint-{_hex(job)[:6]}-{_hex(request_id)[:12]}/"


def savepoint_file(
    job: JobId,
    request_id: str,
    attempt: AttemptNumber,
    checkpoint: CheckpointId,
    subtask: SubtaskId,
    nonce: str,
) -> str:
    """A file of a savepoint; a retry under the same request never writes over an earlier try's."""
    return savepoint_folder(job, request_id) + _file(attempt, checkpoint, subtask, nonce)


def relative_to_job(job: JobId, path: str) -> str:
    """A path of the job's folder as its manifests name it."""
    prefix = f"{job}/"
    assert path.startswith(prefix), (job, path)
    return path.removeprefix(prefix)


def transaction(job: JobId, subtask: SubtaskId, attempt: AttemptNumber, n: int, nonce: str) -> str:
    """Name of a sink's transaction; `nonce` is that of the log's first entry."""
    return f"{job}/{subtask.operator}/{subtask.index}/{attempt}-{n}-{nonce}"


def flink_id(text: str) -> str:
    """Our identity as the 32 hex digits that Flink's tools want."""
    return _hex(text)[:32]


def _hex(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
