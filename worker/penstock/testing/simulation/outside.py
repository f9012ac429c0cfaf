"""The world beyond the job: what sinks wrote, and what can be seen of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from penstock.core.ids import OperatorId
from penstock.testing.simulation.job import Record
from penstock.testing.simulation.world import World


class Violation(AssertionError):
    """Something that must never happen, happened."""


@dataclass(slots=True)
class Transaction:
    """Records of one sink's subtask between two barriers."""

    name: str
    sink: OperatorId
    attempt: int
    checkpoint: int
    records: tuple[Record, ...]
    state: str = "pending"


class Outside:
    """Transactions by name; aborting takes time, and happens even if who wanted it is dead."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.transactions: dict[str, Transaction] = {}
        self.on_commit: Callable[[Transaction], None] = lambda _: None

    def precommit(self, transaction: Transaction) -> None:
        """Make a transaction durable and invisible; at once, as part of the snapshot."""
        there = self.transactions.get(transaction.name)
        if there is not None and there.records != transaction.records:
            raise Violation(f"transaction {transaction.name} is written twice")
        self.transactions.setdefault(transaction.name, transaction)

    def commit(self, name: str) -> None:
        """Make it visible; again does nothing."""
        transaction = self.transactions[name]
        if transaction.state == "aborted":
            raise Violation(f"{name} was aborted and is to be committed: its records are lost")
        if transaction.state == "pending":
            transaction.state = "committed"
            self._world.note(f"outside: committed {name}")
            self.on_commit(transaction)

    def abort_others(self, sink: OperatorId, *, attempt: int, named: set[str]) -> None:
        """Abort, some time from now, what older attempts left open and no manifest names."""
        for transaction in list(self.transactions.values()):
            if (
                transaction.sink == sink
                and transaction.attempt < attempt
                and transaction.name not in named
                and transaction.state == "pending"
            ):
                self._world.soon(partial(self._abort, transaction), at_most_ms=300)

    def visible(self, sink: OperatorId) -> list[Record]:
        """All that a reader of the sink sees, sorted."""
        return sorted(
            record
            for transaction in self.transactions.values()
            if transaction.sink == sink and transaction.state == "committed"
            for record in transaction.records
        )

    def _abort(self, transaction: Transaction) -> None:
        if transaction.state == "pending":
            transaction.state = "aborted"
            self._world.note(f"outside: aborted {transaction.name}")
