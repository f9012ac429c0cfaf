"""Control frames, as values and as bytes: a length of four bytes, then msgpack with a type tag.

Supervisor ↔ coordinator over TCP, supervisor ↔ child over a socketpair, the same frames. Pure: the
sockets are in `control`. Reference: docs/reference/frames.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import msgspec

from penstock.core.failure import Failure
from penstock.core.ids import (
    AttemptNumber,
    ChannelId,
    CheckpointId,
    OperatorId,
    SubtaskId,
    WorkerId,
)
from penstock.core.snapshots import OperatorPart, OperatorRestore

FRAME_BYTES_MAX = 256 << 20


class Frame(msgspec.Struct, frozen=True, tag=True):
    """Base of all control frames."""


# ── the handshake: both sides prove that they know the job's token ──────────────────────────────


class Challenge(Frame, frozen=True):
    """Coordinator → supervisor: prove it for this nonce."""

    nonce: bytes


class Register(Frame, frozen=True):
    """Supervisor → coordinator: its proof, and a nonce for the coordinator to prove it in turn."""

    worker: WorkerId
    proof: bytes
    nonce: bytes
    copies: tuple[str, ...] = ()
    pid: int = 0


class Welcome(Frame, frozen=True):
    """Coordinator → supervisor: the coordinator's own proof."""

    proof: bytes


class Refused(Frame, frozen=True):
    """Coordinator → supervisor: wrong token, or an ordinal that is taken; the connection ends.

    `again`: it may be tried again later, the reason can pass.
    """

    reason: str
    again: bool = False


class Hello(Frame, frozen=True):
    """Child → child, after a Challenge: this connection is this channel of this attempt."""

    channel: ChannelId
    attempt: AttemptNumber
    proof: bytes
    nonce: bytes


# ── an attempt ──────────────────────────────────────────────────────────────────────────────────


class Prepare(Frame, frozen=True):
    """Coordinator → supervisor → child: restore these subtasks and listen.

    `placement[i]` is the worker of subtask i at full parallelism. `graph` is the coordinator's, for
    the child to compare with its own. `settings` are those of the manifest that the child needs.
    """

    attempt: AttemptNumber
    parallelism: int
    max_parallelism: int
    placement: tuple[int, ...]
    subtasks: tuple[SubtaskId, ...]
    restore: dict[OperatorId, dict[int, OperatorRestore]]
    committed: CheckpointId | None
    job_nonce: str
    graph: dict[str, Any]
    commit_only: bool = False
    fetched: dict[OperatorId, dict[int, tuple[str, ...]]] = {}
    """Supervisor → child: where each of `restore[operator][subtask].keyed` lies on local disk."""


class Ready(Frame, frozen=True):
    """Child → supervisor → coordinator: restored; channels may connect to this address.

    `fetched_bytes` is what had to be downloaded for it; the supervisor knows.
    """

    attempt: AttemptNumber
    address: tuple[str, int]
    fetched_bytes: int = 0


class Run(Frame, frozen=True):
    """Coordinator → all: connect to the others and go. Addresses by worker."""

    attempt: AttemptNumber
    addresses: dict[int, tuple[str, int]]


class Cancel(Frame, frozen=True):
    """Coordinator → supervisor: end the child of every attempt up to this one."""

    attempt: AttemptNumber


class Failed(Frame, frozen=True):
    """Child or supervisor → coordinator: the attempt cannot go on."""

    attempt: AttemptNumber
    failure: Failure


class Finished(Frame, frozen=True):
    """Child → coordinator: all input of this subtask ended and was processed."""

    attempt: AttemptNumber
    subtask: SubtaskId


# ── a checkpoint ────────────────────────────────────────────────────────────────────────────────


class Trigger(Frame, frozen=True):
    """Coordinator → child, through the supervisor; fields as in `checkpoint.effects.Trigger`."""

    attempt: AttemptNumber
    checkpoint: CheckpointId
    base: CheckpointId | None
    savepoint: str | None = None
    stop: bool = False
    drain: bool = False


class Snapshotted(Frame, frozen=True):
    """Child → supervisor: a subtask's part lies on local disk.

    `copies` are, by operator, the RocksDB directory (hard links) or the canonical file, as the format
    of the keyed handle in `parts` says; the supervisor uploads it and puts the files into the handle.
    """

    attempt: AttemptNumber
    checkpoint: CheckpointId
    subtask: SubtaskId
    parts: dict[OperatorId, OperatorPart]
    copies: dict[OperatorId, str] = {}


class Acked(Frame, frozen=True):
    """Supervisor → coordinator: durable; `files` are the paths that were uploaded for it."""

    attempt: AttemptNumber
    checkpoint: CheckpointId
    subtask: SubtaskId
    parts: dict[OperatorId, OperatorPart]
    files: tuple[str, ...] = ()
    bytes_new: int = 0


class Declined(Frame, frozen=True):
    """Child or supervisor → coordinator: no part of this checkpoint from this subtask."""

    attempt: AttemptNumber
    checkpoint: CheckpointId
    subtask: SubtaskId
    reason: str


class Aborted(Frame, frozen=True):
    """Coordinator → supervisor → child: the checkpoint was given up."""

    attempt: AttemptNumber
    checkpoint: CheckpointId
    reason: str


class Resume(Frame, frozen=True):
    """Coordinator → child: the stop failed, go on."""

    attempt: AttemptNumber
    checkpoint: CheckpointId


class Completed(Frame, frozen=True):
    """Coordinator → supervisor → child: the checkpoint is complete; sinks commit up to it."""

    attempt: AttemptNumber
    checkpoint: CheckpointId
    commit: bool


class Committed(Frame, frozen=True):
    """Child → coordinator: every transaction up to this checkpoint is committed."""

    attempt: AttemptNumber
    checkpoint: CheckpointId


# ── beside it ───────────────────────────────────────────────────────────────────────────────────


class OperatorMetrics(msgspec.Struct, frozen=True):
    """Totals since the attempt began, of one subtask of one operator.

    `unread_files` and `unread_bytes` are what a source has still to read, None where it cannot tell.
    """

    records_in: int = 0
    records_out: int = 0
    busy_ms: int = 0
    keys: int = 0
    state_bytes: int = 0
    counters: dict[str, int] = {}
    unread_files: int | None = None
    unread_bytes: int | None = None


class Heartbeat(Frame, frozen=True):
    """Child → supervisor → coordinator. `progress_age_ms`: since the mailbox last ended a turn.

    Coordinator → supervisor, of attempt 0: it lives.
    """

    attempt: AttemptNumber
    progress_age_ms: int
    metrics: dict[str, OperatorMetrics] = {}
    """By `operator/subtask`."""


class Said(Frame, frozen=True):
    """Child → coordinator: a line of the author's `ctx.log`, or a warning of ours."""

    level: str
    message: str
    fields: dict[str, Any] = {}


AnyFrame: TypeAlias = (
    Challenge
    | Register
    | Welcome
    | Refused
    | Hello
    | Prepare
    | Ready
    | Run
    | Cancel
    | Failed
    | Finished
    | Trigger
    | Snapshotted
    | Acked
    | Declined
    | Aborted
    | Resume
    | Completed
    | Committed
    | Heartbeat
    | Said
)

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[AnyFrame] = msgspec.msgpack.Decoder(AnyFrame)


def encode(frame: AnyFrame) -> bytes:
    """A frame as it travels, length first."""
    body = _encoder.encode(frame)
    assert len(body) <= FRAME_BYTES_MAX, len(body)
    return len(body).to_bytes(4, "big") + body


def decode(body: bytes | bytearray | memoryview) -> AnyFrame:
    """The frame in these bytes, which are without their length.

    Raises:
        ValueError: these bytes are no frame.
    """
    try:
        return _decoder.decode(body)
    except (msgspec.MsgspecError, RecursionError) as e:
        raise ValueError(f"these bytes are no frame: {e}") from e


def body_bytes(head: bytes | bytearray | memoryview, bytes_max: int = FRAME_BYTES_MAX) -> int:
    """The length of the body that follows these four bytes.

    Raises:
        ValueError: longer than `bytes_max`.
    """
    length = int.from_bytes(head, "big")
    if length > bytes_max:
        raise ValueError(f"a frame of {length} bytes, at most {bytes_max} are allowed")
    return length


class FrameReader:
    """Cuts a stream of bytes into frames of at most `bytes_max` bytes each."""

    def __init__(self, bytes_max: int = FRAME_BYTES_MAX) -> None:
        self.bytes_max = bytes_max
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[AnyFrame]:
        """The frames that are complete now.

        Raises:
            ValueError: these bytes are no frames; the connection cannot be used any more.
        """
        self._buffer += data
        while len(self._buffer) >= 4:
            end = 4 + body_bytes(self._buffer[:4], self.bytes_max)
            if len(self._buffer) < end:
                return
            body = self._buffer[4:end]
            del self._buffer[:end]
            yield decode(body)
