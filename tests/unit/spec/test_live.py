"""Live settings in place of the manifest's own."""

import pytest

from penstock.core.errors import Rejected
from penstock.spec.changes import live_settings
from penstock.spec.live import with_live
from penstock.spec.streamjob import StreamJob


def manifest(**spec) -> StreamJob:
    return StreamJob.model_validate(
        {
            "apiVersion": "penstock.dev/v1alpha1",
            "kind": "StreamJob",
            "metadata": {"name": "wordcount"},
            "spec": {"entrypoint": "wordcount:job", **spec},
        }
    )


WRITTEN = {
    "checkpoints": {"storage": "s3://b/c", "mode": "AtLeastOnce", "interval": "5s", "retained": 7},
    "restart": {"strategy": "FixedDelay", "delay": "9s"},
    "worker": {"progressTimeout": "1m", "resources": {"limits": {"cpu": "2"}}},
}


def test_they_replace_all_live_fields_and_nothing_else():
    found = with_live(manifest(**WRITTEN), {"checkpoints": {"interval": "1s"}}).spec
    assert found.checkpoints.interval_ms == 1_000
    assert found.checkpoints.retained == 3, "left out: the default, not what the manifest had"
    assert found.restart == manifest().spec.restart
    assert found.worker.progress_timeout_ms == manifest().spec.worker.progress_timeout_ms
    assert (found.checkpoints.storage, found.checkpoints.mode) == ("s3://b/c", "AtLeastOnce")
    assert found.worker.resources == manifest(**WRITTEN).spec.worker.resources


def test_none_are_the_manifests_own():
    assert with_live(manifest(**WRITTEN), {}) == manifest(**WRITTEN)


def test_those_of_another_manifest_are_what_it_says():
    live = live_settings(manifest(**WRITTEN).spec)
    found = with_live(manifest(), live)
    assert live_settings(found.spec) == live


@pytest.mark.parametrize(
    ("live", "says"),
    [
        ({"checkpoints": {"mode": "AtLeastOnce"}}, "spec.checkpoints.mode cannot change while"),
        ({"checkpoints": {"storage": "s3://x"}}, "spec.checkpoints.storage cannot change while"),
        ({"savepoints": {"storage": "s3://x"}}, "spec.savepoints.storage cannot change while"),
        ({"parallelism": 3}, "spec.parallelism cannot change while"),
        ({"checkpoints": {"interval": "soon"}}, "spec.checkpoints.interval"),
        ({"checkpoints": {"intervall": "5s"}}, "did you mean interval"),
        ({"checkpoints": 5}, "spec.checkpoints"),
        ({"speed": {"max": 1}}, "spec.speed"),
        ({"restart": {"strategy": "None", "delay": "1s"}}, "spec.restart.delay"),
    ],
)
def test_what_cannot_be_is_refused_naming_the_field(live: dict, says: str):
    with pytest.raises(Rejected) as refused:
        with_live(manifest(**WRITTEN), live)
    assert says in refused.value.what
