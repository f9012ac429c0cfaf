"""A move that cannot go on gives way to a spec that asks for something else, wherever it stands."""

from dataclasses import replace
from datetime import timedelta

import pytest

from penstock.spec.orders import JobPhase, StartOrder
from penstock_operator.reconcile.observed import PodPhase
from penstock_operator.resources.status import MoveKind, Phase, Step

LONG = timedelta(seconds=30)


def kill_coordinator(world):
    """Its container ends again and again."""
    world.silent, world.phase, live = True, JobPhase.RESTARTING, world.live

    def dead():
        live()
        for name, pod in world.pods.items():
            if pod.ordinal is None and pod.revision == first:
                world.pods[name] = replace(
                    pod, is_ready=False, waiting="CrashLoopBackOff", termination="OOMKilled"
                )
            elif pod.ordinal is None:
                world.silent = False

    first, world.live = world.revision, dead
    dead()


def lose_image(world):
    """Pods of this version that are made from now on wait for it for ever."""
    live, first, known = world.live, world.revision, frozenset(p.uid for p in world.pods.values())

    def gone():
        live()
        for name, pod in world.pods.items():
            if pod.revision == first and pod.uid not in known:
                world.pods[name] = replace(
                    pod, is_ready=False, phase=PodPhase.PENDING, waiting="ImagePullBackOff"
                )

    world.live = gone


def stuck_rescale(world):
    world.turn(200)
    world.apply(parallelism=3, rescale={"cooldown": "0s"})
    world.until(lambda w: w.status.move is not None and w.status.move.step is Step.MOVING)
    kill_coordinator(world)


def stuck_restart(world):
    lose_image(world)
    world.annotations["penstock.dev/restart"] = "1"


def stuck_restore(world):
    said, take, first = "operator a has state and is not in the job", world.take, world.revision

    def refuse(order):
        is_first = isinstance(order, StartOrder) and order.revision == first
        world.refuses = {StartOrder: said} if is_first else {}
        take(order)

    world.take = refuse
    world.apply(restore={"from": "s3://bucket/savepoints/savepoint-aaaaaa-bbbbbbbbbbbb"})


STUCK = {
    MoveKind.RESCALE: stuck_rescale,
    MoveKind.RESTART: stuck_restart,
    MoveKind.RESTORE: stuck_restore,
}


@pytest.mark.parametrize("kind", STUCK)
def test_another_version_is_taken_up_while_a_move_cannot_go_on(running, kind):
    STUCK[kind](running)
    running.turn(100, each=LONG)
    assert running.status.move.kind is kind
    assert running.condition("Stalled")[0] == "True"
    running.apply(image="words:2")
    running.turn(200, each=LONG)
    assert running.status.revision == running.revision
    assert running.phase is JobPhase.RUNNING


@pytest.mark.parametrize("kind", STUCK)
def test_a_job_is_suspended_while_a_move_cannot_go_on(running, kind):
    STUCK[kind](running)
    running.turn(100, each=LONG)
    running.apply(desiredState="Suspended")
    running.turn(200, each=LONG)
    assert running.status.phase is Phase.SUSPENDED
    assert not running.pods
