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
_LOG_ENTRY = re.compile(r"([0-9]{20})\.json")
_CHECKPOINT = re.compile(r"chk-([0-9]+)")


def log_folder(job: JobId) -> str:
    """Where the job's log lies, with a slash at the end."""
    return f"{job}/log/"


def log_entry(job: JobId, seq: int) -> str:
    """The entry with that number."""
    return f"{log_folder(job)}{seq:0{_LOG_DIGITS}}.json"


def log_seq(path: str) -> int | None:
    """The number of a log entry's path, None for any other name."""
    found = _LOG_ENTRY.fullmatch(path.rpartition("/")[2])
    return int(found[1]) if found else None


def checkpoint_folder(job: JobId, checkpoint: CheckpointId) -> str:
    """Folder of one checkpoint's own files, with a slash at the end."""
    return f"{job}/chk-{checkpoint}/"


def checkpoint_metadata(job: JobId, checkpoint: CheckpointId) -> str:
    """The manifest of a checkpoint."""
    return checkpoint_folder(job, checkpoint) + METADATA


def checkpoint_of(path: str) -> CheckpointId | None:
    """The number of the checkpoint whose folder `<job>/chk-<n>/` a path is in; else None."""
    parts = path.split("/")  # the first is the job, which may be called chk-1 itself
    found = _CHECKPOINT.fullmatch(parts[1]) if len(parts) > 2 else None
    return CheckpointId(int(found[1])) if found else None


def file_name(
    attempt: AttemptNumber, checkpoint: CheckpointId, subtask: SubtaskId, nonce: str
) -> str:
    """A private file's or a savepoint's file's own name, without its folder."""
    return f"{attempt}-{checkpoint}-{subtask.operator}-{subtask.index}-{nonce}"


def private_file(
    job: JobId, attempt: AttemptNumber, checkpoint: CheckpointId, subtask: SubtaskId, nonce: str
) -> str:
    """A file of one checkpoint alone; never named like one of another attempt."""
    return checkpoint_folder(job, checkpoint) + file_name(attempt, checkpoint, subtask, nonce)


def shared_folder(job: JobId) -> str:
    """Where immutable files lie that several checkpoints use, with a slash at the end."""
    return f"{job}/shared/"


def shared_file(job: JobId, attempt: AttemptNumber, checkpoint: CheckpointId, nonce: str) -> str:
    """A shared file; its name says who uploaded it, so that a sweep can tell whose it is."""
    return f"{shared_folder(job)}{attempt}-{checkpoint}-{nonce}"


def savepoint_prefix(job: JobId) -> str:
    """How the folders of all savepoints of a job begin; those of another job may begin so, too."""
    return f"savepoint-{_hex(job)[:6]}-"


def shared_checkpoint(path: str) -> CheckpointId | None:
    """The number of the checkpoint that a shared file was uploaded for."""
    folder, _, name = path.rpartition("/")
    numbers = name.split("-", 2)[:2]
    if folder.endswith("/shared") and len(numbers) == 2 and all(n.isdigit() for n in numbers):
        return CheckpointId(int(numbers[1]))
    return None


def savepoint_folder(job: JobId, request_id: str) -> str:
    """Folder of the savepoint that this request makes, with a slash at the end: told beforehand."""
    return f"{savepoint_prefix(job)}{_hex(request_id)[:12]}/"


def savepoint_file(
    job: JobId,
    request_id: str,
    attempt: AttemptNumber,
    checkpoint: CheckpointId,
    subtask: SubtaskId,
    nonce: str,
) -> str:
    """A file of a savepoint; a retry under the same request never writes over an earlier try's."""
    return savepoint_folder(job, request_id) + file_name(attempt, checkpoint, subtask, nonce)


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
