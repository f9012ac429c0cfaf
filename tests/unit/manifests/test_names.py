"""Names fit wherever Kubernetes puts them, and say what they are of."""

import re

import pytest

from penstock.spec.changes import REVISION_LENGTH
from penstock.spec.parts.fields import NAME_LENGTH_MAX
from penstock_operator.manifests import names
from penstock_operator.manifests.names import Job, Role

LONGEST = "j" * NAME_LENGTH_MAX
REVISION = "r" * REVISION_LENGTH
LABEL_LENGTH_MAX = 63
STATEFUL_SET_HASH = "-" + "h" * 10
"""What the StatefulSet's controller adds to its name for a label of each pod."""


@pytest.mark.parametrize(
    "name",
    [
        names.coordinator(LONGEST),
        names.worker(LONGEST) + STATEFUL_SET_HASH,
        names.worker(LONGEST) + "-32767",
        names.token(LONGEST, "uid"),
        names.service_account(LONGEST),
        names.network_policy(LONGEST),
        names.revision(LONGEST, REVISION),
        names.check(LONGEST, REVISION),
        names.disposal(LONGEST, "s3://bucket/savepoints/x"),
        names.disposal(LONGEST, None),
    ],
)
def test_the_longest_job_name_leaves_room(name):
    assert len(name) <= LABEL_LENGTH_MAX
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name)


def test_disposals_of_two_savepoints_have_two_names():
    assert names.disposal("a", "s3://b/1") != names.disposal("a", "s3://b/2")


def test_two_parts_are_not_joined_into_the_same_identity():
    assert names.digest("ab", "c") != names.digest("a", "bc")


def test_labels_without_a_revision_are_constant():
    constant = names.labels("a", Role.WORKER)
    assert names.labels("a", Role.WORKER, "r1").items() > constant.items()
    assert names.selector("a", Role.WORKER).items() <= constant.items()


def test_everything_belongs_to_its_streamjob():
    (owner,) = names.metadata(Job("ns", "a", "u-1"), "x", Role.SHARED)["ownerReferences"]
    assert owner == {
        "apiVersion": "penstock.dev/v1alpha1",
        "kind": "StreamJob",
        "name": "a",
        "uid": "u-1",
        "controller": True,
        "blockOwnerDeletion": True,
    }
