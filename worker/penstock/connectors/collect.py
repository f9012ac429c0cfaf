"""The sink `Collect`: records in the memory of this process, for tests; exactly once.

What was prepared outlives the attempt that prepared it, as long as the process lives: attempts are
threads when a test runs a job.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from threading import Lock
from typing import Any

from penstock.core.errors import Corrupt
from penstock.dataflow.connector import Sink, SinkContext, Writer


class Collect(Sink[object]):
    """Keeps what was committed, to be read with `committed(job, uid)`."""

    pending_schema = "CollectedBatch v1"

    def open(self, ctx: SinkContext) -> Writer[object]:
        """See Sink."""
        return _Collector(ctx)


def committed(job: str, uid: str) -> list[Any]:
    """The records that were committed by this sink of this job, in the order of commits."""
    with _shelf.lock:
        return list(_shelf.committed[f"{job}/{uid}/"])


def forget(job: str) -> None:
    """Throw away everything that was collected for a job."""
    with _shelf.lock:
        for collected in (_shelf.pending, _shelf.committed):
            for name in [name for name in collected if name.startswith(f"{job}/")]:
                del collected[name]
        _shelf.done = {name for name in _shelf.done if not name.startswith(f"{job}/")}


class _Shelf:
    """Records by transaction until they are committed, then by sink."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.pending: dict[str, list[Any]] = {}
        self.committed: defaultdict[str, list[Any]] = defaultdict(list)
        self.done: set[str] = set()


_shelf = _Shelf()


class _Collector(Writer[object]):
    def __init__(self, ctx: SinkContext) -> None:
        self._ctx = ctx
        self._open: list[Any] = []

    def write(self, records: Sequence[object]) -> None:
        self._open.extend(records)

    def prepare(self, checkpoint: int) -> Sequence[bytes]:
        if not self._open:
            return ()
        name = self._ctx.transaction(checkpoint)
        with _shelf.lock:
            _shelf.pending[name] = self._open
        self._open = []
        return (json.dumps(name).encode(),)

    def commit(self, transaction: bytes) -> None:
        name: str = json.loads(transaction)
        with _shelf.lock:
            if name in _shelf.done:
                return
            if name not in _shelf.pending:
                raise Corrupt(
                    "collected records are gone: they were in the memory of another process",
                    where=name,
                    fix="use Collect only in tests that run a job in one process",
                )
            _shelf.committed[_sink_of(name)] += _shelf.pending.pop(name)
            _shelf.done.add(name)

    def abort_except(self, transactions: Sequence[bytes]) -> None:
        kept = {json.loads(transaction) for transaction in transactions}
        mine = _sink_of(self._ctx.transaction(0))
        own = self._ctx.attempt
        with _shelf.lock:
            for name in list(_shelf.pending):
                if name.startswith(mine) and name not in kept and _attempt_of(name) < own:
                    del _shelf.pending[name]

    def close(self) -> None:
        self._open = []


def _sink_of(transaction: str) -> str:
    job, uid, _ = transaction.split("/", 2)
    return f"{job}/{uid}/"


def _attempt_of(transaction: str) -> int:
    return int(transaction.rpartition("/")[2].partition("-")[0])
