"""The operator's process, whose orders are messages: on their way the coordinator may die, and the answer
may never come."""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from typing import Any

from tests.simulation.operator.operator_process import OperatorProcess
from tests.simulation.whole.process import CoordinatorProcess

from penstock.core.errors import Corrupt, PenstockError, Rejected
from penstock.runtime.order_desk import refusal_of
from penstock.spec.orders import Order
from penstock_operator.reconcile.observed import Refusal

TIMEOUT_MS = 5_000
LATENCY_MS = 60


class WholeOperatorProcess(OperatorProcess):
    """A turn waits for the answer to an order, as long as `coordinator_client` does."""

    cluster: Any
    _waits_for: object | None = None

    def kill(self) -> None:
        self._waits_for = None
        super().kill()

    def _take_turn(self) -> Generator[None, None, None]:
        self._waits_for = None
        for _ in super()._take_turn():
            yield
            while self._waits_for is not None:
                yield

    def _send(self, order: Order) -> None:
        leader: CoordinatorProcess | None = self.cluster.answering()
        if leader is None:
            return
        world = self.cluster.world
        asked = self._waits_for = object()
        id = order.request_id

        def answered(error: PenstockError | None) -> None:
            if self._waits_for is not asked:
                return
            self._waits_for = None
            if error is None:
                self._refusals.pop(id, None)
            elif isinstance(error, Rejected | Corrupt):
                said = f"{error.what}; {error.fix}" if error.fix else error.what
                self.cluster.note(f"refused: {said}")
                self._refusals[id] = self._now, Refusal(refusal_of(error), said)

        def gave_up() -> None:
            if self._waits_for is asked:
                self._waits_for = None

        def answer(error: PenstockError | None) -> None:
            world.soon(partial(answered, error), at_most_ms=LATENCY_MS)

        world.soon(lambda: leader.post(order, answer), at_most_ms=LATENCY_MS)
        world.after(TIMEOUT_MS, gave_up)
