"""Orders are named so that an answer to a former one is never taken for the answer to this one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from penstock.spec.orders import REQUEST_ID_LENGTH_MAX
from penstock_operator.reconcile.turn import request_id
from penstock_operator.resources.status import Move, MoveKind, Step

BEGAN = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def _move(*, tries: int = 0, since: datetime = BEGAN, step: Step = Step.STARTING) -> Move:
    return Move(
        kind=MoveKind.UPGRADE,
        step=step,
        id="9b012053-1a44-42a0-9a6f-e6fa515ddb31.2.upgrade.1795262351576",
        tries=tries,
        started_at=BEGAN,
        since=since,
    )


def test_a_step_that_is_entered_again_orders_under_another_id() -> None:
    again = _move(since=BEGAN + timedelta(seconds=8))
    assert request_id(_move(), "start") != request_id(again, "start")


def test_each_try_each_step_and_each_order_has_an_id_of_its_own() -> None:
    ids = {
        request_id(_move(), "start"),
        request_id(_move(tries=1), "start"),
        request_id(_move(step=Step.STOPPING), "start"),
        request_id(_move(), "stop"),
    }
    assert len(ids) == 4
    assert all(len(id) <= REQUEST_ID_LENGTH_MAX for id in ids)


def test_an_operator_that_was_killed_names_the_order_as_the_one_before_did() -> None:
    read_back = Move.model_validate_json(_move().model_dump_json())
    assert request_id(read_back, "start") == request_id(_move(), "start")
