"""The API server: any kind of object by its path, plain values in and out, errors translated.

The `kubernetes` package gives configuration, certificates and credentials; its typed models would
change values that they do not know. Safe from several threads.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import urllib3
from kubernetes import client, config
from kubernetes.client import rest

from penstock.core.errors import PenstockError, Rejected, Retryable
from penstock_operator.manifests.names import MANAGER, Manifest
from penstock_operator.resources.names import API_VERSION

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 20.0
_PAGE = 500
_ESCAPED = str.maketrans({c: f"\\u{ord(c):04x}" for c in "<>&"})
"""In JSON these stand in texts alone; the API server's encoder escapes them."""


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of object and where it is found."""

    api_version: str
    kind: str
    plural: str
    is_namespaced: bool = True

    def path(self, namespace: str | None, name: str | None = None, part: str | None = None) -> str:
        """Of a collection, an object, or a part of one as `status`."""
        root = "/api" if "/" not in self.api_version else "/apis"
        parts = [root, self.api_version]
        if self.is_namespaced and namespace is not None:
            parts += ["namespaces", quote(namespace)]
        parts += [self.plural, *([quote(name)] if name else []), *([part] if part else [])]
        return "/".join(parts)


STREAM_JOBS = Resource(API_VERSION, "StreamJob", "streamjobs")
SAVEPOINTS = Resource(API_VERSION, "Savepoint", "savepoints")
PODS = Resource("v1", "Pod", "pods")
CLAIMS = Resource("v1", "PersistentVolumeClaim", "persistentvolumeclaims")
CONFIG_MAPS = Resource("v1", "ConfigMap", "configmaps")
SECRETS = Resource("v1", "Secret", "secrets")
SERVICES = Resource("v1", "Service", "services")
SERVICE_ACCOUNTS = Resource("v1", "ServiceAccount", "serviceaccounts")
EVENTS = Resource("v1", "Event", "events")
NAMESPACES = Resource("v1", "Namespace", "namespaces", is_namespaced=False)
DEPLOYMENTS = Resource("apps/v1", "Deployment", "deployments")
STATEFUL_SETS = Resource("apps/v1", "StatefulSet", "statefulsets")
REVISIONS = Resource("apps/v1", "ControllerRevision", "controllerrevisions")
BUDGETS = Resource("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
NETWORK_POLICIES = Resource("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
DEFINITIONS = Resource(
    "apiextensions.k8s.io/v1",
    "CustomResourceDefinition",
    "customresourcedefinitions",
    is_namespaced=False,
)

_BY_KIND = {
    (r.api_version, r.kind): r
    for r in (
        PODS, CONFIG_MAPS, SECRETS, SERVICES, SERVICE_ACCOUNTS, DEPLOYMENTS, STATEFUL_SETS,
        REVISIONS, BUDGETS, NETWORK_POLICIES, SAVEPOINTS,
    )
}  # fmt: skip


def resource_of(manifest: Manifest) -> Resource:
    """Where an object of ours goes."""
    return _BY_KIND[manifest["apiVersion"], manifest["kind"]]


class NotFound(Retryable):
    """There is no such object."""


class Conflict(Retryable):
    """The object is another than the one that was meant, or one of that name exists."""


class Forbidden(Rejected):
    """Not allowed: no right, or a quota."""


class NamespaceGoes(Retryable):
    """Nothing can be made in a namespace that is being deleted."""


class Kube:
    """The API server's door. Every method may raise Rejected, with the server's own sentence, or
    Retryable."""

    def __init__(self, configuration: client.Configuration, *, threads: int = 8) -> None:
        configuration.connection_pool_maxsize = threads
        self._configuration = configuration
        self._pool: urllib3.PoolManager = rest.RESTClientObject(configuration).pool_manager

    @classmethod
    def from_environment(cls, *, threads: int = 8) -> Kube:
        """In a pod its service account, elsewhere KUBECONFIG.

        Raises:
            Rejected: neither is there.
        """
        configuration = client.Configuration()
        try:
            config.load_incluster_config(  # type: ignore[no-untyped-call]
                client_configuration=configuration
            )
        except config.ConfigException:
            try:
                config.load_kube_config(  # type: ignore[no-untyped-call]
                    client_configuration=configuration
                )
            except (config.ConfigException, OSError) as e:
                raise Rejected(
                    f"there is no cluster to talk to: {e}",
                    where="service account of the pod, KUBECONFIG",
                    fix="run it in a pod, or name a kubeconfig",
                ) from e
        return cls(configuration, threads=threads)

    def get(self, resource: Resource, namespace: str | None, name: str) -> Manifest:
        """One object. Raises NotFound."""
        return self._ask("GET", resource.path(namespace, name))

    def find(self, resource: Resource, namespace: str | None, name: str) -> Manifest | None:
        """One object, None where there is none."""
        try:
            return self.get(resource, namespace, name)
        except NotFound:
            return None

    def list(
        self, resource: Resource, namespace: str | None, *, labels: str = ""
    ) -> list[Manifest]:
        """All objects of a namespace (None: of the cluster), page by page."""
        items: list[Manifest] = []
        query = {"limit": str(_PAGE)} | ({"labelSelector": labels} if labels else {})
        while True:
            page = self._ask("GET", resource.path(namespace), query=query)
            items += page["items"]
            if not (more := page["metadata"].get("continue")):
                return items
            query["continue"] = more

    def may_list(self, resource: Resource, namespace: str) -> bool:
        """Whether these can be listed there: False without the right, or without the kind."""
        try:
            self._ask("GET", resource.path(namespace), query={"limit": "1"})
        except (Forbidden, NotFound):
            return False
        except PenstockError:
            pass  # it says nothing about rights
        return True

    def create(self, manifest: Manifest, *, dry_run: bool = False) -> Manifest:
        """Raises Conflict when there is one of that name."""
        resource = resource_of(manifest)
        path = resource.path(manifest["metadata"]["namespace"])
        query = {"fieldValidation": "Strict", "fieldManager": MANAGER}
        if dry_run:
            query["dryRun"] = "All"
        return self._ask("POST", path, query=query, body=manifest)

    def create_event(self, event: Manifest) -> Manifest:
        """A Kubernetes Event, which has no field manager. Raises as `create` does."""
        path = EVENTS.path(event["metadata"]["namespace"])
        return self._ask("POST", path, body=event)

    def apply(self, manifest: Manifest, *, dry_run: bool = False) -> Manifest:
        """Server-side apply: the object has these fields afterwards, whoever had them before."""
        metadata = manifest["metadata"]
        query = {"fieldManager": MANAGER, "force": "true", "fieldValidation": "Strict"}
        if dry_run:
            query["dryRun"] = "All"
        return self._ask(
            "PATCH",
            resource_of(manifest).path(metadata["namespace"], metadata["name"]),
            query=query,
            body=manifest,
            content_type="application/apply-patch+yaml",
        )

    def replace(self, manifest: Manifest) -> Manifest:
        """The whole object, whatever stood there; unlike a patch its answer tells nothing of that.

        Raises:
            NotFound: there is none to replace.
        """
        metadata = manifest["metadata"]
        return self._ask(
            "PUT",
            resource_of(manifest).path(metadata["namespace"], metadata["name"]),
            query={"fieldManager": MANAGER, "fieldValidation": "Strict"},
            body=manifest,
        )

    def merge(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        patch: Mapping[str, Any],
        *,
        part: str | None = None,
    ) -> Manifest:
        """JSON merge patch; a resourceVersion in it raises Conflict when the object has gone on."""
        return self._ask(
            "PATCH",
            resource.path(namespace, name, part),
            query={"fieldManager": MANAGER},
            body=patch,
            content_type="application/merge-patch+json",
        )

    def replace_status(self, resource: Resource, manifest: Manifest) -> Manifest:
        """The whole status, of the very version that was read; returns what was stored."""
        metadata = manifest["metadata"]
        return self._ask(
            "PUT",
            resource.path(metadata["namespace"], metadata["name"], "status"),
            query={"fieldManager": MANAGER},
            body=manifest,
        )

    def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        *,
        uid: str | None = None,
        grace_seconds: int | None = None,
    ) -> None:
        """Its dependents go in the background. Raises NotFound, or Conflict for another UID."""
        options: dict[str, Any] = {"propagationPolicy": "Background"}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        self._ask("DELETE", resource.path(namespace, name), body=options)

    def _ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> Manifest:
        where = f"{method} {path}"
        try:
            response = self._pool.request(
                method,
                f"{self._configuration.host}{path}{'?' + urlencode(query) if query else ''}",
                body=None if body is None else _encoded(body),
                headers=self._headers(content_type),
                timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=READ_TIMEOUT_S),
                retries=False,
            )
        except urllib3.exceptions.HTTPError as e:
            raise Retryable(f"the API server does not answer: {e}", where=where) from e
        try:
            answer = json.loads(response.data)
        except ValueError:
            answer = {"message": response.data[:200].decode(errors="replace")}
        if response.status >= 400:
            raise _error(response.status, answer, where)
        assert isinstance(answer, dict), where
        return answer

    def _headers(self, content_type: str) -> dict[str, str]:
        headers = {
            "Accept": "application/json",
            "Content-Type": content_type,
            "User-Agent": MANAGER,
        }
        auth: Any = self._configuration.auth_settings()  # renews a token that has expired
        for header in auth.values():
            if header["value"]:
                headers[header["key"]] = header["value"]
        return headers


def _encoded(body: Mapping[str, Any]) -> bytes:
    """As the API server writes it, in the order it has: the data of a ControllerRevision is compared by
    its bytes, and a patch of anything else in it brings the server's own."""
    return json.dumps(body, separators=(",", ":")).translate(_ESCAPED).encode()


def _error(status: int, answer: Any, where: str) -> PenstockError:
    message = str(answer.get("message") if isinstance(answer, dict) else answer)
    match status:
        case 404:
            return NotFound(message, where=where)
        case 409:
            return Conflict(message, where=where)
        case 400 | 405 | 413 | 415 | 422:
            return Rejected(message, where=where)
        case 403 if _is_of_a_namespace_that_goes(answer):
            return NamespaceGoes(message, where=where)
        case 401 | 403:
            fix = "see what the operator's account may do, and the namespace's quotas"
            return Forbidden(message, where=where, fix=fix)
    return Retryable(f"the API server answered {status}: {message}", where=where)


def _is_of_a_namespace_that_goes(answer: Any) -> bool:
    match answer:
        case {"details": {"causes": [*causes]}}:
            return any(cause.get("reason") == "NamespaceTerminating" for cause in causes)
    return False
