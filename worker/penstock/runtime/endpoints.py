"""Sources and sinks at work: a reader as the head of a chain, a writer at its end with what it has
prepared and not committed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from msgspec import structs

from penstock.core.descriptors import StateKind
from penstock.core.errors import Corrupt, Denied, Retryable
from penstock.core.snapshots import SINK_PENDING, OperatorRestore
from penstock.dataflow.connector import HasBacklog, Reader, SourceState, Writer
from penstock.dataflow.nodes import SOURCE_KNOWN, SOURCE_POSITION, Node
from penstock.network.frames import OperatorMetrics
from penstock.runtime.failures import CannotCommit, UserError
from penstock.runtime.stages import Stage

OPERATOR_LISTS = (StateKind.SPLIT_LIST, StateKind.UNION_LIST)


class SourceStage(Stage):
    """The head of a source's chain: polled, not called."""

    def __init__(self, node: Node, reader: Reader[Any], restore: OperatorRestore | None) -> None:
        super().__init__(node)
        self.reader = reader
        self._measured = reader if isinstance(reader, HasBacklog) else None
        if restore is not None and restore.lists:
            reader.restore(source_state(restore))

    def snapshot(self) -> dict[str, tuple[bytes, ...]]:
        """Where the next poll goes on."""
        state = self.reader.snapshot()
        return {SOURCE_POSITION: tuple(state.splits), SOURCE_KNOWN: tuple(state.known)}

    def metrics(self) -> OperatorMetrics:
        """See Stage."""
        found = super().metrics()
        backlog = self._measured.backlog() if self._measured is not None else None
        if backlog is None:
            return found
        return structs.replace(found, unread_files=backlog.files, unread_bytes=backlog.bytes)

    def close(self) -> None:
        """See Stage."""
        self.reader.close()


def source_state(restore: OperatorRestore) -> SourceState:
    """What a reader is restored from."""
    return SourceState(restore.lists.get(SOURCE_POSITION, ()), restore.lists.get(SOURCE_KNOWN, ()))


class SinkStage(Stage):
    """The end of a chain: two phases, and what is between them.

    `pending` are prepared transactions by checkpoint. A checkpoint that was aborted leaves its
    transactions here; they are committed with the next that completes, being part of it.
    """

    def __init__(
        self, node: Node, writer: Writer[Any], restore: OperatorRestore | None, index: int, of: int
    ) -> None:
        super().__init__(node)
        self.writer = writer
        self.pending: list[tuple[int, bytes]] = []
        everybodys = [_pending(item) for item in _stored(restore)]
        self.pending.extend(everybodys[index::of])
        self._committed_to = 0
        if index == 0:
            writer.abort_except([transaction for _, transaction in everybodys])

    def __call__(self, values: Sequence[Any]) -> None:
        """See Stage."""
        self.records_in += len(values)
        try:
            self.writer.write(values)
        except (OSError, Retryable, Corrupt, Denied):
            raise  # the world's, not a record's
        except Exception as e:
            if isinstance(e.__cause__, OSError):
                raise
            raise self._of_one(values) from e

    def _of_one(self, values: Sequence[Any]) -> UserError:
        """The error of a batch, told with the record that alone cannot be written either. What was
        written goes with the attempt."""
        for index, value in enumerate(values):
            try:
                self.writer.write([value])
            except Exception:  # noqa: BLE001  it was raised for the batch, and is told with it
                return UserError(self.node, record=value, index=index)
        return UserError(self.node)

    def snapshot(self, checkpoint: int) -> dict[str, tuple[bytes, ...]]:
        """Prepare what was written, and remember it with what is still to be committed."""
        self.pending += [(checkpoint, t) for t in self.writer.prepare(checkpoint)]
        # A copy: a commit on the helper's thread takes items out meanwhile, and none may be missed.
        return {SINK_PENDING: tuple(_stored_form(n, t) for n, t in list(self.pending))}

    def commit(self, checkpoint: int) -> None:
        """Commit everything prepared up to a checkpoint; may run on another thread. All of it is tried.

        Raises:
            Retryable: not all; call it again.
            CannotCommit: something that was prepared is not there any more, all the rest is committed.
        """
        done = [item for item in list(self.pending) if item[0] <= checkpoint]
        failed: Retryable | None = None
        gone: Corrupt | None = None
        committed = []
        for item in done:
            try:
                self.writer.commit(item[1])
                committed.append(item)
            except Retryable as e:
                failed = e
            except Corrupt as e:
                gone = gone or e
        for item in committed:
            self.pending.remove(item)
        if failed is not None:
            raise failed
        if gone is not None:
            raise CannotCommit(gone.what, where=gone.where, fix=gone.fix) from gone

    def close(self) -> None:
        """See Stage."""
        self.writer.close()


def _stored(restore: OperatorRestore | None) -> Sequence[bytes]:
    return () if restore is None else restore.lists.get(SINK_PENDING, ())


def _stored_form(checkpoint: int, transaction: bytes) -> bytes:
    return json.dumps({"checkpoint": checkpoint, "transaction": json.loads(transaction)}).encode()


def _pending(item: bytes) -> tuple[int, bytes]:
    body = json.loads(item)
    return body["checkpoint"], json.dumps(body["transaction"]).encode()
