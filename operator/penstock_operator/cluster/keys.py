"""The operator's own key, and the tokens of jobs that are derived from it.

A token is made from the key and the job's UID: the same one again, after any restart, without reading
anything of the job's.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets

from penstock_operator.cluster.kube import NAMESPACES, SECRETS, Conflict, Kube
from penstock_operator.manifests.names import MANAGER

KEY_SECRET = "penstock-operator-key"  # noqa: S105  the object's name
_KEY_BYTES = 32


def operator_key(kube: Kube, namespace: str) -> bytes:
    """The key in the operator's namespace; made when there is none."""
    found = kube.find(SECRETS, namespace, KEY_SECRET)
    if found is None:
        key = base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode()
        try:
            found = kube.create(_manifest(namespace, key))
        except Conflict:
            found = kube.get(SECRETS, namespace, KEY_SECRET)
    return base64.b64decode(found["data"]["key"])


def token_of(key: bytes, uid: str) -> str:
    """The token of the job with that UID."""
    return hmac.new(key, uid.encode(), hashlib.sha256).hexdigest()


def cluster_identity(kube: Kube) -> str:
    """What a cluster is known by: the UID of its kube-system."""
    return str(kube.get(NAMESPACES, None, "kube-system")["metadata"]["uid"])


def _manifest(namespace: str, key: str) -> dict[str, object]:
    labels = {"app.kubernetes.io/name": "penstock", "app.kubernetes.io/managed-by": MANAGER}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": KEY_SECRET, "namespace": namespace, "labels": labels},
        "type": "Opaque",
        "data": {"key": key},
    }
