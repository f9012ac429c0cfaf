"""What a revision's pods were pulled as is kept with it; a tag that was moved is told of."""

from dataclasses import replace

import pytest

from penstock_operator.reconcile import effects as do
from penstock_operator.reconcile import images
from penstock_operator.reconcile.job import reconcile
from penstock_operator.resources.names import ANNOTATION_RESTART
from penstock_operator.resources.status import MoveKind, Phase

OLD, NEW = "sha256:" + "a" * 64, "sha256:" + "b" * 64


@pytest.fixture
def pulled(world):
    """It runs, as an image with a digest."""
    world.image_digest = OLD
    world.settle()
    return world


def told(world):
    return [e for e in world.done if isinstance(e, do.Announce) and e.reason == "ImageChanged"]


def evict(world):
    """A worker comes back elsewhere."""
    pod = next(p for p in world.pods.values() if p.ordinal == 1)
    del world.pods[pod.name]


def test_what_the_pods_were_pulled_as_is_kept_with_their_revision_once(pulled):
    assert pulled.digests == {pulled.revision: {"coordinator": (OLD,), "worker": (OLD,)}}
    pulled.done.clear()
    pulled.turn(5)
    assert not [e for e in pulled.done if isinstance(e, do.RecordDigests)]
    assert told(pulled) == []


def test_nothing_is_kept_of_pods_that_have_not_begun(world):
    world.settle()
    assert world.digests == {}


def test_a_pod_that_comes_back_as_another_image_is_told_of_once_and_left_running(pulled):
    pulled.image_digest = NEW
    evict(pulled)
    pulled.settle()
    pulled.turn(5)
    (event,) = told(pulled)
    assert event.is_warning
    assert event.message == (
        f"words:1 is another image than revision {pulled.revision} ran before: "
        "worker sha256:bbbbbbbbbbbb instead of sha256:aaaaaaaaaaaa"
    )
    assert pulled.status.phase is Phase.RUNNING
    assert pulled.digests[pulled.revision]["worker"] == (OLD, NEW)
    pulled.image_digest = OLD
    evict(pulled)
    pulled.settle()
    assert told(pulled) == [event], "it ran that before"


def test_it_is_said_before_it_is_kept_so_that_a_killed_operator_says_it_again(pulled):
    pulled.image_digest = NEW
    evict(pulled)
    pulled.turn()
    for _ in range(2):
        decided = reconcile(pulled.observed(), pulled.now).effects
        deeds = [type(e) for e in decided if isinstance(e, do.Announce | do.RecordDigests)]
        assert deeds == [do.Announce, do.RecordDigests]


def test_a_restart_that_brings_another_image_says_so_in_its_history(pulled):
    pulled.image_digest = NEW
    pulled.annotations[ANNOTATION_RESTART] = "r1"
    pulled.settle()
    (event,) = told(pulled)
    assert "coordinator sha256:bbb" in event.message
    entry = pulled.status.history[-1]
    assert (entry.move, entry.outcome) == (MoveKind.RESTART, "Done")
    assert entry.message.endswith(event.message)


def test_a_rollback_to_a_tag_that_was_moved_goes_on_and_says_so(pulled):
    stable = pulled.revision
    pulled.until(lambda w: w.status.stable_revision == stable)
    pulled.apply(image="words:2")
    pulled.broken.add(pulled.revision)
    pulled.image_digest = NEW
    pulled.settle()
    assert pulled.status.revision == stable
    (event,) = told(pulled)
    assert event.message.startswith("words:1 is another image")
    entry = pulled.status.history[-1]
    assert (entry.move, entry.outcome) == (MoveKind.ROLLBACK, "Done")
    assert entry.message.endswith(event.message)
    (words,) = [h.message for h in pulled.status.history if h.move == MoveKind.UPGRADE]
    assert event.message not in words, "the version that failed was never another"


def test_workers_of_one_revision_that_run_two_images_are_told_of_once(world):
    world.turn(4)
    revision = world.revision
    world.until(lambda w: len(w.pods) == 3)
    for pod in list(world.pods.values()):
        digest = NEW if pod.ordinal == 1 else OLD
        world.pods[pod.name] = replace(pod, image_digest=digest)
    world.turn(5)
    assert len(told(world)) == 1
    assert world.digests[revision] == {"coordinator": (OLD,), "worker": (OLD, NEW)}


def test_not_more_is_kept_than_fits(pulled):
    for number in range(images.DIGESTS_KEPT + 3):
        pulled.image_digest = f"sha256:{number}"
        evict(pulled)
        pulled.settle()
    kept = pulled.digests[pulled.revision]["worker"]
    assert len(kept) == images.DIGESTS_KEPT
    assert kept[-1] == pulled.image_digest
