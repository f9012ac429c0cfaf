"""Releases of the chart by helm, and what the account of a release's operator may do."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.support_kube import OPERATOR_NAMESPACE

CHART = Path(__file__).parents[2] / "helm" / "penstock"

MAY = [
    ("get", "streamjobs.penstock.dev"),
    ("patch", "streamjobs.penstock.dev"),
    ("update", "streamjobs.penstock.dev/status"),
    ("create", "savepoints.penstock.dev"),
    ("create", "pods"),
    ("delete", "pods"),
    ("patch", "statefulsets.apps"),
    ("patch", "deployments.apps"),
    ("create", "secrets"),
    ("update", "secrets"),
    ("delete", "persistentvolumeclaims"),
]
"""Verbs and kinds in the namespaces of its jobs."""

MAY_NOT = [
    ("get", "secrets"),
    ("list", "secrets"),
    ("patch", "secrets"),
    ("delete", "secrets"),
    ("create", "streamjobs.penstock.dev"),
    ("delete", "streamjobs.penstock.dev"),
    ("delete", "savepoints.penstock.dev"),
    ("get", "pods/log"),
    ("create", "pods/exec"),
    ("create", "persistentvolumeclaims"),
    ("delete", "statefulsets.apps"),
    ("delete", "namespaces"),
    ("get", "nodes"),
    ("create", "roles.rbac.authorization.k8s.io"),
    ("bind", "clusterroles.rbac.authorization.k8s.io"),
    ("impersonate", "serviceaccounts"),
    ("create", "serviceaccounts/token"),
    ("patch", "customresourcedefinitions.apiextensions.k8s.io"),
]
"""There or anywhere."""


@dataclass(frozen=True)
class Release:
    """One release; the one that the tests find is the default."""

    name: str = "penstock"
    namespace: str = OPERATOR_NAMESPACE

    @property
    def account(self) -> str:
        """Its operator's, as the API server knows it."""
        return f"system:serviceaccount:{self.namespace}:{self.name}"

    def values(self) -> dict[str, Any]:
        """What was set when it was installed."""
        found: dict[str, Any] = json.loads(self.helm("get", "values", self.name, "-o", "json"))
        return found or {}

    def install(self, values: dict[str, Any]) -> None:
        """With these values and no others, until its operator runs; or bring it to them."""
        arguments = ("upgrade", "--install", self.name, str(CHART), "--reset-values", "-f", "-")
        self.helm(*arguments, "--wait", "--timeout", "2m", values=values)

    def keep(self) -> None:
        """Have it again as it is, after its uninstallation was refused."""
        revision: int = json.loads(self.helm("status", self.name, "-o", "json"))["version"]
        self.helm("rollback", self.name, str(revision), "--wait")

    def helm(self, *arguments: str, values: dict[str, Any] | None = None) -> str:
        """`helm -n NAMESPACE …`: what it prints."""
        done = self.ask_helm(*arguments, values=values)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def ask_helm(
        self, *arguments: str, values: dict[str, Any] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """The same, which may be refused."""
        return subprocess.run(
            ["helm", "-n", self.namespace, *arguments],
            input=None if values is None else json.dumps(values),
            capture_output=True,
            text=True,
            check=False,
        )

    def allowed(
        self, rights: list[tuple[str, str]], namespace: str | None
    ) -> list[tuple[str, str]]:
        """Those of these rights that its operator has there (None: in every namespace)."""
        return [right for right in rights if can_i(*right, account=self.account, where=namespace)]


def can_i(verb: str, what: str, *, account: str, where: str | None) -> bool:
    """`kubectl auth can-i`; `what` is KIND, KIND/SUBRESOURCE or, of cluster-wide kinds, KIND:NAME."""
    kind, _, subresource = what.partition("/")  # can-i takes what follows a slash for a name
    asked = [verb, kind.replace(":", "/"), *(["--subresource", subresource] if subresource else [])]
    place = ["--all-namespaces"] if where is None else ["-n", where]
    done = subprocess.run(
        ["kubectl", "auth", "can-i", *asked, *place, "--as", account],
        capture_output=True,
        text=True,
        check=False,
    )
    # It says no by its exit code, too.
    answer = done.stdout.strip().split(" ")[0]
    assert answer in {"yes", "no"}, done.stderr
    return answer == "yes"
