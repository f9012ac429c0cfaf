"""Who sets a field that changes nothing yet is told so."""

from penstock.spec.streamjob import StreamJob
from penstock.spec.without_effect import WITHOUT_EFFECT, set_without_effect


def manifest(**spec: object) -> StreamJob:
    return StreamJob.model_validate(
        {
            "apiVersion": "penstock.dev/v1alpha1",
            "kind": "StreamJob",
            "metadata": {"name": "wordcount"},
            "spec": {"entrypoint": "wordcount:job", **spec},
        }
    )


def test_a_field_that_nobody_set_is_not_mentioned():
    assert list(set_without_effect(manifest())) == []


def test_fields_that_were_set_are_named_with_what_happens_instead():
    found = dict(
        set_without_effect(manifest(errors={"policy": "Skip"}, checkpoints={"mode": "AtLeastOnce"}))
    )
    assert found.keys() == {"spec.errors", "spec.checkpoints.mode"}
    assert found["spec.errors"] == WITHOUT_EFFECT["errors"]
