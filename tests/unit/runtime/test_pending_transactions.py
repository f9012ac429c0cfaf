"""What a sink prepared is in every snapshot until it is committed, though commits run elsewhere."""

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from penstock.core.snapshots import SINK_PENDING
from penstock.runtime.endpoints import SinkStage


class _Transaction(bytes):
    """Lets something happen at the moment when a snapshot reads it, as another thread would."""

    meanwhile: Callable[[], None] = staticmethod(lambda: None)

    def decode(self, *args: Any) -> str:
        self.meanwhile()
        return super().decode(*args)


class _Writer:
    def __init__(self) -> None:
        self.prepared = _Transaction(b'"of 1"'), _Transaction(b'"of 2"')

    def prepare(self, checkpoint: int) -> list[bytes]:
        return [self.prepared[checkpoint - 1]]

    def commit(self, transaction: bytes) -> None:
        pass

    def abort_except(self, transactions: Any) -> None:
        pass


def test_a_commit_beside_a_snapshot_leaves_out_nothing_that_was_just_prepared() -> None:
    writer = _Writer()
    sink = SinkStage(SimpleNamespace(id="out"), writer, None, 0, 1)  # type: ignore[arg-type]
    sink.snapshot(1)
    writer.prepared[0].meanwhile = lambda: sink.commit(1)
    stored = sink.snapshot(2)[SINK_PENDING]
    assert {"checkpoint": 2, "transaction": "of 2"} in [json.loads(item) for item in stored]
