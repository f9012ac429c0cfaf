"""More workers than a cluster has room for: that is told, and another number is taken up at once."""

from dataclasses import replace
from datetime import timedelta

import pytest
from tests.unit.operator.reconcile.conftest import World, spec

from penstock.spec.orders import JobPhase, RefusalKind, RequestPhase, RequestStatus, StartOrder
from penstock_operator.reconcile.observed import PodPhase, Workload
from penstock_operator.resources.status import Phase

LONG = timedelta(seconds=30)


class Small(World):
    """Room for so many workers. A coordinator that waits for more gives way to another start."""

    room = 4

    def __init__(self):
        super().__init__()
        self.gathers = None

    def take(self, order):
        if not isinstance(order, StartOrder) or order.request_id in self.requests:
            super().take(order)
        elif self.answer() is not None:
            self._give_way()
            if order.parallelism <= self.room:
                was, self.phase = self.phase, JobPhase.WAITING
                super().take(order)
                self.phase = was if self.phase is JobPhase.WAITING else self.phase
            else:
                self.gathers = RequestStatus(
                    request_id=order.request_id, kind="start", phase=RequestPhase.RUNNING
                )
                self.requests[order.request_id] = self.gathers

    def _give_way(self):
        if self.gathers is not None:
            self.requests[self.gathers.request_id] = self.gathers.model_copy(
                update={
                    "phase": RequestPhase.FAILED,
                    "error": "another start was ordered",
                    "refusal": RefusalKind.OUTDATED,
                }
            )
        self.gathers = None

    def live(self):
        super().live()
        for name, pod in self.pods.items():
            if pod.ordinal is not None and pod.ordinal >= self.room:
                self.pods[name] = replace(
                    pod, phase=PodPhase.PENDING, is_ready=False, waiting="Unschedulable"
                )


@pytest.fixture
def small():
    return Small()


def test_a_first_start_that_has_no_room_is_told_and_scaled_down(small):
    small.spec = spec(parallelism=40)
    small.turn(20, each=LONG)
    assert small.condition("Stalled") == ("True", "Unschedulable")
    small.apply(parallelism=2)
    small.turn(20, each=LONG)
    assert small.status.phase is Phase.RUNNING
    assert (small.log.parallelism, small.workers.replicas) == (2, 2)


def test_a_first_start_that_has_no_room_is_suspended(small):
    small.spec = spec(parallelism=40)
    small.turn(20, each=LONG)
    small.apply(desiredState="Suspended")
    small.turn(20, each=LONG)
    assert small.status.phase is Phase.SUSPENDED
    assert small.log.attempt == 0


def test_a_rollback_that_has_no_room_is_told_and_scaled_down(small):
    small.settle()
    small.until(lambda w: w.status.stable_revision == w.revision)
    stable = small.revision
    small.apply(image="words:2", parallelism=40)
    small.turn(400, each=timedelta(seconds=10))
    assert small.status.phase is Phase.ROLLING_BACK
    assert small.condition("Stalled")[0] == "True"
    small.apply(parallelism=2)
    small.turn(40, each=LONG)
    assert small.phase is JobPhase.RUNNING
    assert (small.log.revision, small.log.parallelism) == (stable, 2)


def test_a_job_whose_nodes_are_gone_runs_on_with_fewer_workers_when_told(small):
    small.spec = spec(parallelism=4)
    small.settle()
    small.until(lambda w: w.status.stable_revision == w.revision)
    small.room, small.phase, coordinate = 2, JobPhase.RESTARTING, small._coordinate
    small._coordinate = lambda revision: None
    small.turn(20, each=LONG)
    assert small.condition("Stalled") == ("True", "Unschedulable")
    small._coordinate = lambda revision: (
        small.log.parallelism <= small.room and coordinate(revision)
    )
    small.apply(parallelism=2)
    small.turn(40, each=LONG)
    assert small.phase is JobPhase.RUNNING
    assert (small.log.attempt, small.log.parallelism) == (2, 2)
    assert small.status.phase is Phase.RUNNING


def test_a_deployment_whose_pods_are_refused_is_told(world):
    world.until(lambda w: w.coordinator is not None)
    refused = 'pods "words" is forbidden: service account "wordz" not found'
    live = world.live

    def never():
        live()
        world.pods.clear()
        world.coordinator = replace(world.coordinator, failure=refused)

    world.live = never
    world.turn(5)
    assert isinstance(world.coordinator, Workload)
    assert world.condition("Stalled") == ("True", "PodsRefused")
    stalled = next(c for c in world.status.conditions if c.type == "Stalled")
    assert "wordz" in stalled.message
