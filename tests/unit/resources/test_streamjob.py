"""A StreamJob as the API server gives it: read, or answered with a sentence for each mistake."""

import pytest
import yaml
from tests.invalid_specs import GOOD, INVALID, Invalid

from penstock.spec.loading import validate
from penstock_operator.resources.streamjob import read_spec


def test_there_are_at_least_thirty_ways_to_be_wrong():
    assert len(INVALID) >= 30


@pytest.mark.parametrize("case", INVALID, ids=str)
def test_the_operator_answers_a_wrong_spec_with_a_sentence(case: Invalid):
    read = read_spec(case.object)
    assert read.spec is None
    assert read.mistakes == (f"{case.at}: {case.told}",)


@pytest.mark.parametrize("case", INVALID, ids=str)
def test_penstock_run_answers_with_the_same_sentence(case: Invalid):
    draft = validate(yaml.safe_dump(case.object), source="streamjob.yaml")
    told = [(m.field, m.message) for m in draft.mistakes]
    assert told == ([] if case.on_a_cluster else [(case.at, case.told)])


def test_a_good_one_is_read_whatever_kubernetes_keeps_in_it():
    body = Invalid(GOOD, "", "").object
    body["metadata"] |= {
        "uid": "1",
        "generation": 4,
        "managedFields": [{"manager": "kubectl"}],
        "ownerReferences": [],
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    body["status"] = {"phase": "Whatever"}
    read = read_spec(body)
    assert read.mistakes == ()
    assert read.spec.entrypoint == "wordcount:job"


def test_every_mistake_is_told_at_once():
    spec = {"parallelism": 0, "checkpoints": {"retained": 0}, "frobnicate": 1}
    read = read_spec(Invalid(spec, "", "").object)
    assert [mistake.split(":")[0] for mistake in read.mistakes] == [
        "spec.parallelism",
        "spec.checkpoints.retained",
        "spec.frobnicate",
    ]
