"""Whatever the world is like, a decision is made, the same one twice, and nothing is done unintended."""

import random
from dataclasses import replace
from datetime import timedelta

import pytest

from penstock.spec.orders import (
    CancelOrder,
    HoldStatus,
    JobPhase,
    RefusalKind,
    RequestPhase,
    RequestStatus,
    RescaleOrder,
    StartOrder,
    StopOrder,
)
from penstock_operator.reconcile import effects as do
from penstock_operator.reconcile.job import reconcile
from penstock_operator.reconcile.observed import Pod, PodPhase, Report, Workload
from penstock_operator.resources.status import (
    Move,
    MoveKind,
    Phase,
    SavepointPhase,
    Step,
    StopWay,
    StreamJobStatus,
)

SEEDS = range(800)
DEEDS = (do.EnsureWorkers, do.EnsureCoordinator, do.DeletePods, do.DeleteClaims, do.RunCheck)


def any_world(world, rng):
    """A world that may never have come about."""
    maybe = lambda *values: rng.choice([None, *values])  # noqa: E731
    revisions = [world.revision, "another", *world.revisions]
    move = None
    if rng.random() < 0.8:
        move = Move(
            kind=rng.choice(list(MoveKind)),
            step=rng.choice(list(Step)),
            id="uid-1.1.some.1",
            tries=rng.randrange(4),
            started_at=world.now - timedelta(seconds=rng.randrange(2000)),
            since=world.now - timedelta(seconds=rng.randrange(1500)),
            to_revision=maybe(*revisions),
            to_parallelism=maybe(1, 2, 4),
            way=maybe(*StopWay),
            attempt=maybe(0, 1, 9),
            held=rng.random() < 0.5,
            not_before=maybe(world.now, world.now + timedelta(seconds=9)),
            snapshot=maybe("s3://bucket/checkpoints/shop.wordcount/chk-1"),
            error=maybe("no"),
        )
    world.status = world.status.model_copy(
        update={
            "move": move,
            "phase": rng.choice(list(Phase)),
            "revision": maybe(*revisions),
            "stable_revision": maybe(*revisions),
            "failed_revision": maybe(*revisions),
            "parallelism": maybe(1, 2, 3),
            "attempt": maybe(0, 1, 5),
            **({"rescale": None, "upgrade": None} if rng.random() < 0.3 else {}),
        }
    )
    if rng.random() < 0.1:
        world.status = StreamJobStatus()
    seen = world.observed()
    coordinator = seen.coordinator
    if coordinator is not None:
        named = (
            move.id + f".{move.step.lower()}.{rng.choice(['start', 'stop', 'cancel', 'rescale'])}.0"
            if move
            else "x"
        )
        coordinator = coordinator.model_copy(
            update={
                "phase": rng.choice(list(JobPhase)),
                "attempt": rng.randrange(12),
                "revision": rng.choice(revisions),
                "parallelism": rng.randrange(1, 5),
                "next_restore": maybe("s3://bucket/checkpoints/shop.wordcount/chk-1", "s3://x"),
                "hold": maybe(HoldStatus(after=1, stable=2, completed=0, path="s3://x")),
                "requests": (
                    RequestStatus(
                        request_id=named,
                        kind="start",
                        phase=rng.choice(list(RequestPhase)),
                        error=maybe("no"),
                        refusal=maybe(*RefusalKind),
                    ),
                ),
            }
        )
    pods = tuple(
        Pod(
            name=f"wordcount-{i}",
            uid=f"u-{i}",
            revision=rng.choice(revisions),
            phase=PodPhase.RUNNING,
            is_ready=rng.random() < 0.6,
            created_at=world.now - timedelta(seconds=rng.randrange(600)),
            ordinal=i if i < 4 else None,
            is_deleting=rng.random() < 0.2,
            waiting=maybe("CrashLoopBackOff", "ErrImagePull", "ContainerCreating"),
            termination=maybe("", "Killed", '{"what": 7}', '{"what": "x", "exitCode": 5}', "[1]"),
        )
        for i in rng.sample(range(6), rng.randrange(6))
    )
    workload = maybe(Workload("w", rng.choice(revisions), rng.randrange(5), rng.random() < 0.1))
    check = Report(
        "check",
        "u-check",
        rng.choice(revisions),
        maybe("latest", "s3://x"),
        world.now - timedelta(seconds=rng.randrange(400)),
        has_ended=rng.random() < 0.7,
        verdict=maybe({"fits": True}, {"fits": False}, {"what": "x", "exitCode": 3}, {"a": []}),
        waiting=maybe("ErrImagePull"),
    )
    savepoints = tuple(
        replace(
            s,
            status=s.status.model_copy(update={"phase": rng.choice(list(SavepointPhase))}),
            deleted_at=maybe(world.now, world.now - timedelta(hours=1)),
        )
        for s in seen.savepoints
    )
    job = seen.job
    if rng.random() < 0.2:
        job = replace(job, deleted_at=world.now - timedelta(seconds=rng.randrange(600)))
    if rng.random() < 0.2:
        job = replace(job, spec=None, revision=None, mistakes=("wrong",))
    return replace(
        seen,
        job=job,
        coordinator=rng.choice([coordinator, coordinator, None]),
        coordinator_pods=tuple(p for p in pods if p.ordinal is None),
        worker_pods=tuple(p for p in pods if p.ordinal is not None),
        coordinator_workload=maybe(Workload("d", rng.choice(revisions), 1)),
        worker_workload=workload,
        check=maybe(check),
        savepoints=savepoints,
        accepted=maybe(seen.accepted),
        revisions=rng.choice([seen.revisions, ()]),
        disposals=rng.choice([(), (replace(check, purpose="checkpoints"),)]),
        watched_since=maybe(world.now - timedelta(hours=1)),
    )


def varied(world, rng):
    """What people may have asked for."""
    fields = {}
    if rng.random() < 0.3:
        fields["image"] = "words:2"
    if rng.random() < 0.3:
        fields["parallelism"] = rng.randrange(1, 4)
    if rng.random() < 0.2:
        fields["desiredState"] = "Suspended"
    if rng.random() < 0.2:
        fields["restore"] = {"from": rng.choice(["s3://x", "mine", "Latest"])}
    if rng.random() < 0.3:
        fields["upgrade"] = {
            "mode": rng.choice(["Savepoint", "LastState", "Stateless"]),
            "rollback": rng.random() < 0.5,
        }
    if rng.random() < 0.3:
        fields["deletion"] = {"policy": rng.choice(["Savepoint", "Retain", "Delete"])}
    world.apply(**fields)
    for kind in ("savepoint", "checkpoint", "restart", "retry", "rollback"):
        if rng.random() < 0.15:
            world.annotations[f"penstock.dev/{kind}"] = str(rng.randrange(3))


def is_intended(effect, observed):
    """Whether what cannot be taken back stands in the status that was read."""
    status, move = observed.job.status, observed.job.status.move
    match effect:
        case do.Send(order=StartOrder() | StopOrder() | CancelOrder() | RescaleOrder() as order):
            return move is not None and order.request_id.startswith(move.id)
        case do.DeletePods(pods=pods):
            ours = {(p.name, p.uid) for p in (*observed.worker_pods, *observed.coordinator_pods)}
            return move is not None or ours.isdisjoint(pods)
        case do.EnsureWorkers(revision=revision) | do.EnsureCoordinator(revision=revision):
            to = move.to_revision if move is not None else None
            return revision == status.revision or revision == to
        case do.RunDisposal(path=None):
            return move is not None and move.kind is MoveKind.DELETE
        case do.SetFinalizer(present=False):
            is_going = observed.job.deleted_at is not None
            return not is_going or (move is not None and move.step is Step.RELEASING)
        case _:
            return True


@pytest.fixture
def story(running):
    """A world with a past: savepoints, two revisions, a rescale."""
    running.annotations["penstock.dev/savepoint"] = "one"
    running.apply(image="words:1b", parallelism=3)
    running.settle()
    running.turn(5)
    return running


def test_in_any_world_a_decision_is_made_the_same_one_twice_and_nothing_unintended(story):
    base = (story.spec, story.generation, dict(story.annotations), story.status)
    changed = 0
    for seed in SEEDS:
        rng = random.Random(seed)
        story.spec, story.generation, annotations, story.status = base
        story.annotations = dict(annotations)
        varied(story, rng)
        observed = any_world(story, rng)
        try:
            decision = reconcile(observed, story.now)
            again = reconcile(observed, story.now)
        except Exception as e:
            raise AssertionError(f"seed {seed}: {observed.job.status.move}") from e
        assert decision == again, seed
        assert decision.look_again > timedelta(0), seed
        for effect in decision.effects:
            assert is_intended(effect, observed), (seed, effect, observed.job.status.move)
        if decision.status.move != observed.job.status.move:
            changed += 1
            assert not [e for e in decision.effects if isinstance(e, DEEDS)], seed
    assert changed > len(SEEDS) / 4  # what changes the intention does nothing of a move


def test_after_the_status_was_written_a_second_look_at_a_resting_job_changes_nothing(story):
    story.turn(3)
    first = reconcile(story.observed(), story.now)
    story.status = first.status
    second = reconcile(story.observed(), story.now)
    assert second.status == first.status
    assert second.effects == first.effects
