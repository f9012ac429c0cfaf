"""What is remembered between turns is bounded and grows old."""

import pytest

from penstock.spec.orders import RefusalKind
from penstock_operator.cluster.memory import REFUSALS_KEPT_S, Memory
from penstock_operator.reconcile.observed import Refusal

REFUSAL = Refusal(RefusalKind.OUTDATED, "the log has gone on")


@pytest.fixture
def clock():
    return [1000.0]


@pytest.fixture
def memory(clock):
    return Memory(lambda: clock[0])


def test_a_refusal_is_remembered_for_some_minutes(memory, clock):
    memory.remember_refusal("u", "r-1", REFUSAL)
    clock[0] += REFUSALS_KEPT_S
    assert memory.refusals("u") == {"r-1": REFUSAL}
    clock[0] += 1
    assert memory.refusals("u") == {}


def test_an_order_that_was_taken_after_all_is_no_refusal(memory):
    memory.remember_refusal("u", "r-1", REFUSAL)
    memory.remember_refusal("u", "r-1", None)
    assert memory.refusals("u") == {}


def test_jobs_do_not_see_each_others(memory):
    memory.remember_refusal("u", "r-1", REFUSAL)
    memory.remember_tried("u", "rev")
    assert memory.refusals("v") == {}
    assert not memory.was_tried("v", "rev")


def test_only_the_newest_are_kept(memory):
    for n in range(200):
        memory.remember_refusal("u", f"r-{n}", REFUSAL)
        memory.remember_tried("u", f"rev-{n}")
    assert "r-199" in memory.refusals("u")
    assert len(memory.refusals("u")) == 50
    assert not memory.was_tried("u", "rev-0")
    assert memory.was_tried("u", "rev-199")


def test_a_job_that_is_gone_is_forgotten(memory):
    memory.remember_tried("u", "rev")
    memory.forget("u")
    assert not memory.was_tried("u", "rev")
