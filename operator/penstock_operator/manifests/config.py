"""The ConfigMap that pods read the job's manifest from.

It is named by the hash of its upgrade-class content, which is its revision. What is of another class
(live settings, restore, upgrade) follows the current spec in place: pods that run took it by REST, and
one that starts again finds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from penstock.spec.changes import FieldClass, class_of, fields_as_written
from penstock.spec.streamjob import API_VERSION, KIND, StreamJobSpec
from penstock_operator.manifests import names
from penstock_operator.manifests.names import Job, Manifest, Role
from penstock_operator.manifests.pods import AWS_CONFIG

_FOLLOWING = frozenset({FieldClass.IGNORE, FieldClass.LIVE, FieldClass.OWN})
_PODS_OWN = (("worker", "podTemplate"), ("coordinator", "podTemplate"))
"""What only the API server reads."""


def config_map(
    job: Job, revision: str, recorded: StreamJobSpec, current: StreamJobSpec | None
) -> Manifest:
    """The manifest of a revision as its pods see it; without a valid current spec, as recorded."""
    document = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": job.name},
        "spec": spec_in_force(recorded, current or recorded),
    }
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=1000)
    data = {"streamjob.yaml": text}
    if recorded.script is not None:
        data["job.py"] = recorded.script
    if recorded.storage_credentials and recorded.storage_credentials.endpoint:
        data[AWS_CONFIG] = "[default]\nregion = us-east-1\n"
    name = names.revision(job.name, revision)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": names.metadata(job, name, Role.SHARED, revision=revision),
        "data": data,
    }


def spec_in_force(recorded: StreamJobSpec, current: StreamJobSpec) -> dict[str, Any]:
    """What the revision froze, and all else as it is wanted now; plain values in the manifest's form."""
    result: dict[str, Any] = {}
    for spec, is_following in ((recorded, False), (current, True)):
        for path, value in fields_as_written(spec):
            if path in _PODS_OWN or (class_of(".".join(path)) in _FOLLOWING) is not is_following:
                continue
            _put(result, path, value)
    return result


def _put(block: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    *above, name = path
    for part in above:
        block = block.setdefault(part, {})
    block[name] = value


def written(spec: StreamJobSpec) -> Mapping[str, Any]:
    """The spec without defaults, as plain values."""
    return spec.model_dump(mode="json", by_alias=True, exclude_unset=True)
