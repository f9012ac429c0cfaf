"""Who may do what: the pods' account without rights, the job's token, and who reaches its pods."""

from __future__ import annotations

from penstock_operator.manifests import names
from penstock_operator.manifests.names import Job, Manifest, Role


def service_account(job: Job) -> Manifest:
    """An account that is granted nothing: pods of a job never ask the API server."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": names.metadata(job, names.service_account(job.name), Role.SHARED),
        "automountServiceAccountToken": False,
    }


def token_secret(job: Job, token: str) -> Manifest:
    """What workers, coordinator and operator show each other."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": names.metadata(job, names.token(job.name, job.uid), Role.SHARED),
        "type": "Opaque",
        "stringData": {"token": token},
    }


def network_policy(job: Job) -> Manifest:
    """The job's pods reach each other; everyone reaches the coordinator's REST.

    Its GETs (metrics, status, page) are for whoever may see the network; orders need the token. Egress
    stays open: sources and sinks are the author's.
    """
    own = {"podSelector": {"matchLabels": names.selector(job.name)}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": names.metadata(job, names.network_policy(job.name), Role.SHARED),
        "spec": {
            **own,
            "policyTypes": ["Ingress"],
            "ingress": [
                {"from": [own]},
                {"ports": [{"protocol": "TCP", "port": names.REST_PORT}]},
            ],
        },
    }
