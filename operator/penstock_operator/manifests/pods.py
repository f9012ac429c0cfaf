"""What all pods of a job share: who they run as, what they may, how they reach the object store.

A pod's template is a function of the spec and the effective image alone: it is rendered once per
revision and kept (`record`), so nothing here may depend on what changes while a revision runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from penstock.spec.parts.snapshots import CaBundle, StorageCredentials
from penstock.spec.streamjob import StreamJobSpec
from penstock_operator.manifests import names
from penstock_operator.manifests.merge import merged
from penstock_operator.manifests.names import Job, Manifest, Role

USER = 10001
JOB_FOLDER = "/job"
SETTINGS_FOLDER = "/etc/penstock"
VOLUME_FOLDER = "/var/lib/penstock"
AWS_CONFIG = "aws-config"
_TRUST_FOLDER = "/etc/penstock-trust"
_TRUST_FILE = f"{_TRUST_FOLDER}/ca.pem"
_CERTIFICATES_FOLDER = "/etc/penstock-ca"

CONTAINER_SECURITY: Mapping[str, Any] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}
POD_SECURITY: Mapping[str, Any] = {
    "runAsNonRoot": True,
    "runAsUser": USER,
    "runAsGroup": USER,
    "fsGroup": USER,
    # A volume with millions of files would be walked at each start.
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}


def pod_template(
    job: Job,
    spec: StreamJobSpec,
    role: Role,
    revision: str,
    *,
    container: Mapping[str, Any],
    env: Sequence[Manifest],
    mounts: Sequence[Manifest] = (),
    pod: Mapping[str, Any],
    changes: Mapping[str, Any],
) -> Manifest:
    """A PodTemplateSpec: what is common, with `container`, `env`, `mounts` and `pod` of its role, then
    the user's `changes`. Our labels win, because the objects around the pods select by them."""
    template = {
        "metadata": {
            "labels": names.labels(job.name, role, revision),
            "annotations": {"kubectl.kubernetes.io/default-container": names.CONTAINER},
        },
        "spec": {
            "serviceAccountName": spec.service_account_name or names.service_account(job.name),
            # An account that was named was named for its identity.
            "automountServiceAccountToken": spec.service_account_name is not None,
            "enableServiceLinks": False,
            "securityContext": dict(POD_SECURITY),
            "terminationGracePeriodSeconds": 30,
            **_init_containers(spec, container["image"]),
            "containers": [
                {
                    "name": names.CONTAINER,
                    "workingDir": JOB_FOLDER,
                    "securityContext": dict(CONTAINER_SECURITY),
                    **container,
                    **_secret_env(spec.storage_credentials),
                    "env": [*_shared_env(job, spec), *env],
                    "volumeMounts": [*_shared_mounts(spec), *mounts],
                }
            ],
            "volumes": _volumes(job, spec, revision),
            **pod,
        },
    }
    result = merged(template, changes)
    own = {"labels": names.labels(job.name, role, revision)}
    return merged(result, {"metadata": own})


def _secret_env(credentials: StorageCredentials | None) -> Manifest:
    if credentials is None or credentials.secret_name is None:
        return {}
    return {"envFrom": [{"secretRef": {"name": credentials.secret_name}}]}


def _shared_env(job: Job, spec: StreamJobSpec) -> list[Manifest]:
    env: list[Manifest] = [
        {"name": "PENSTOCK_NAMESPACE", "value": job.namespace},
        {"name": "PENSTOCK_POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
    ]
    credentials = spec.storage_credentials
    if credentials and credentials.endpoint:
        env += [
            {"name": "AWS_ENDPOINT_URL", "value": credentials.endpoint},
            # boto3 wants a region, which most such servers ignore. One in the Secret wins over a file.
            {"name": "AWS_CONFIG_FILE", "value": f"{SETTINGS_FOLDER}/{AWS_CONFIG}"},
        ]
    if _ca_bundle(spec):
        env.append({"name": "AWS_CA_BUNDLE", "value": _TRUST_FILE})
    return env


def _shared_mounts(spec: StreamJobSpec) -> list[Manifest]:
    mounts: list[Manifest] = [
        {"name": "settings", "mountPath": SETTINGS_FOLDER, "readOnly": True},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108  the only place of a read-only root
    ]
    if spec.script is not None:
        # The file alone: the image may have modules beside it.
        script = {"mountPath": f"{JOB_FOLDER}/job.py", "subPath": "job.py", "readOnly": True}
        mounts.append({"name": "script", **script})
    if _ca_bundle(spec):
        mounts.append({"name": "trust", "mountPath": _TRUST_FOLDER, "readOnly": True})
    return mounts


def _volumes(job: Job, spec: StreamJobSpec, revision: str) -> list[Manifest]:
    config = names.revision(job.name, revision)
    items = [{"key": "streamjob.yaml", "path": "streamjob.yaml"}]
    if spec.storage_credentials and spec.storage_credentials.endpoint:
        items.append({"key": AWS_CONFIG, "path": AWS_CONFIG})
    name = names.token(job.name, job.uid)
    token = {"name": name, "items": [{"key": "token", "path": "token"}]}
    volumes: list[Manifest] = [
        {
            "name": "settings",
            "projected": {
                "defaultMode": 0o440,
                "sources": [{"configMap": {"name": config, "items": items}}, {"secret": token}],
            },
        },
        {"name": "tmp", "emptyDir": {}},
    ]
    if spec.script is not None:
        items = [{"key": "job.py", "path": "job.py"}]
        volumes.append({"name": "script", "configMap": {"name": config, "items": items}})
    if bundle := _ca_bundle(spec):
        volumes += [
            {"name": "certificates", "configMap": {"name": bundle.config_map_name}},
            {"name": "trust", "emptyDir": {}},
        ]
    return volumes


def _ca_bundle(spec: StreamJobSpec) -> CaBundle | None:
    return spec.storage_credentials.ca_bundle if spec.storage_credentials else None


def _init_containers(spec: StreamJobSpec, image: str) -> Manifest:
    """boto3 reads certificates from one file; the ConfigMap may have several, by any name."""
    if not _ca_bundle(spec):
        return {}
    return {
        "initContainers": [
            {
                "name": "trust",
                "image": image,
                "command": ["sh", "-c", f"cat {_CERTIFICATES_FOLDER}/* > {_TRUST_FILE}"],
                "securityContext": dict(CONTAINER_SECURITY),
                "volumeMounts": [
                    {
                        "name": "certificates",
                        "mountPath": _CERTIFICATES_FOLDER,
                        "readOnly": True,
                    },
                    {"name": "trust", "mountPath": _TRUST_FOLDER},
                ],
            }
        ]
    }
