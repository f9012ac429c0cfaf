"""The chart as it renders: each file of `helm/` here is one set of values, without the CRDs.

After a change that is meant, `PENSTOCK_WRITE_GOLDEN=1 python -m pytest tests/golden/test_chart.py`
writes them anew; the difference is what a reviewer reads.
"""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.helm

CHART = Path(__file__).parents[2] / "helm" / "penstock"
FOLDER = Path(__file__).parent / "helm"
AS_INSTALLED = ("--namespace", "penstock-system", "--kube-version", "1.34.0")
CRDS = "# Source: penstock/templates/crds/"

EVERYTHING = {
    "image": {"repository": "registry.example/penstock-operator", "tag": "1.2.3"},
    "workerImage": {"repository": "registry.example/penstock-worker", "tag": "1.2.3"},
    "imagePullSecrets": [{"name": "registry"}],
    "watchNamespaces": ["shop", "billing"],
    "podLabels": {"team": "streams"},
    "podAnnotations": {"note": "on the pod"},
    "serviceAccount": {"annotations": {"note": "on the account"}},
    "nodeSelector": {"disk": "fast"},
    "tolerations": [{"key": "streams", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "important",
    "metrics": {"service": {"annotations": {"note": "on the service"}}},
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "env": [{"name": "TZ", "value": "UTC"}],
    "failPoints": True,
}
VALUES: dict[str, dict[str, Any]] = {
    "default": {},
    "everything": EVERYTHING,
    "least": {
        "aggregatedRoles": False,
        "uninstallCheck": False,
        "metrics": {"service": {"enabled": False}},
    },
}


@pytest.fixture(scope="session")
def helm() -> str:
    """Helm's program; skips where there is none."""
    found = shutil.which("helm")
    if found is None:
        pytest.skip("there is no helm on PATH: the chart is not rendered")
    return found


def render(
    helm: str, values: dict[str, Any], release: str = "penstock"
) -> subprocess.CompletedProcess[str]:
    """`helm template` with those values."""
    return subprocess.run(
        [helm, "template", release, str(CHART), *AS_INSTALLED, "-f", "-"],
        input=yaml.safe_dump(values),
        capture_output=True,
        text=True,
        check=False,
    )


def rendered(helm: str, values: dict[str, Any], release: str = "penstock") -> list[str]:
    """The documents, each beginning with its source, those of CRDs left out."""
    answer = render(helm, values, release)
    assert answer.returncode == 0, answer.stderr
    documents = answer.stdout.split("---\n# Source: ")[1:]
    return [f"# Source: {d}" for d in documents if not f"# Source: {d}".startswith(CRDS)]


def objects(helm: str, values: dict[str, Any], release: str = "penstock") -> list[dict[str, Any]]:
    """The same, parsed."""
    return [yaml.safe_load(document) for document in rendered(helm, values, release)]


@pytest.mark.parametrize("name", VALUES)
def test_the_chart_renders_to_the_golden_file(helm: str, name: str) -> None:
    file = FOLDER / f"{name}.yaml"
    text = "---\n".join(rendered(helm, VALUES[name]))
    if os.environ.get("PENSTOCK_WRITE_GOLDEN"):
        file.write_text(text)
    assert text == file.read_text()


def test_helm_finds_nothing_to_say_about_the_chart(helm: str) -> None:
    answer = subprocess.run(
        [helm, "lint", "--strict", str(CHART)], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "[WARNING]" not in answer.stdout


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"replicas": 2}, "replicas"),
        ({"replica": 1}, "replica"),
        ({"watchNamespaces": "shop"}, "watchNamespaces"),
        ({"watchNamespaces": ["Shop"]}, "watchNamespaces"),
        ({"watchNamespaces": ["shop", "shop"]}, "watchNamespaces"),
        ({"image": {"repository": ""}}, "repository"),
        ({"image": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
        ({"image": {"tag": 1.2}}, "tag"),
        ({"workerImage": {"tag": "a b"}}, "tag"),
        ({"workerImage": {"digest": "sha256:1"}}, "digest"),
        ({"resources": {"request": {}}}, "request"),
        ({"failPoints": "yes"}, "failPoints"),
        ({"env": [{"value": "1"}]}, "env"),
        ({"rbac": {"create": "no"}}, "create"),
        ({"serviceAccount": {"name": "The One"}}, "name"),
        ({"crds": {"enabled": "no"}}, "crds"),
        ({"crds": False}, "crds"),
        ({"serviceMonitor": {"interval": "soon"}}, "interval"),
        ({"nodeSelector": {"disk": 1}}, "disk"),
        ({"imagePullSecrets": ["registry"]}, "imagePullSecrets"),
        (
            {"serviceMonitor": {"enabled": True}, "metrics": {"service": {"enabled": False}}},
            "serviceMonitor",
        ),
    ],
)
def test_a_wrong_value_is_refused_and_named(helm: str, values: dict[str, Any], named: str) -> None:
    answer = render(helm, values)
    assert answer.returncode != 0, answer.stdout
    assert named in answer.stderr


def test_rights_in_a_namespace_are_the_same_as_those_everywhere(helm: str) -> None:
    everywhere, one = (
        [o for o in objects(helm, values) if o["kind"] in {"ClusterRole", "Role"}]
        for values in ({}, {"watchNamespaces": ["shop"]})
    )
    cluster = _role(everywhere, "ClusterRole", "penstock-system-penstock")
    inside = _role(one, "Role", "penstock-system-penstock")
    outside = _role(one, "ClusterRole", "penstock-system-penstock")
    assert inside["metadata"]["namespace"] == "shop"
    assert [r for r in cluster["rules"] if r in inside["rules"]] == inside["rules"]
    named = [r for r in outside["rules"] if "resourceNames" in r]
    assert [r["resources"] for r in named] == [["namespaces"], ["customresourcedefinitions"]]
    assert [r for r in outside["rules"] if r not in named] == [
        {
            "apiGroups": ["penstock.dev"],
            "resources": ["streamjobs", "savepoints"],
            "verbs": ["get", "list", "patch"],
        }
    ], "enough to take finalizers off where a namespace took the Role along"


@pytest.mark.parametrize("values", [{}, {"watchNamespaces": ["shop"]}])
def test_an_account_that_is_there_is_used_and_given_the_rights(
    helm: str, values: dict[str, Any]
) -> None:
    found = objects(helm, values | {"serviceAccount": {"name": "ours"}})
    assert "ServiceAccount" not in {o["kind"] for o in found}
    pods = [o["spec"]["template"]["spec"] for o in found if o["kind"] in {"Deployment", "Job"}]
    assert {pod["serviceAccountName"] for pod in pods} == {"ours"}
    subjects = [s for o in found if "Binding" in o["kind"] for s in o["subjects"]]
    assert {(s["name"], s["namespace"]) for s in subjects} == {("ours", "penstock-system")}


@pytest.mark.parametrize("values", [{}, {"watchNamespaces": ["shop"]}])
def test_rights_that_somebody_else_grants_are_left_out(helm: str, values: dict[str, Any]) -> None:
    found = objects(helm, values | {"rbac": {"create": False}, "aggregatedRoles": False})
    assert not [o["kind"] for o in found if "Role" in o["kind"]]


@pytest.mark.parametrize("values", [{}, {"watchNamespaces": ["shop"]}])
def test_the_operator_can_read_no_secret_but_its_own_key(helm: str, values: dict[str, Any]) -> None:
    reading = [
        rule
        for o in objects(helm, values)
        for rule in o.get("rules", [])
        if "secrets" in rule["resources"] and set(rule["verbs"]) & {"get", "list", "watch", "patch"}
    ]
    assert reading == [
        {
            "apiGroups": [""],
            "resources": ["secrets"],
            "resourceNames": ["penstock-operator-key"],
            "verbs": ["get"],
        }
    ]


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_no_right_is_given_by_a_star(helm: str, values: dict[str, Any]) -> None:
    rules = [rule for o in objects(helm, values) for rule in o.get("rules", [])]
    assert rules
    assert not [rule for rule in rules if "*" in [x for part in rule.values() for x in part]]


def test_pods_meet_the_restricted_standard(helm: str) -> None:
    pods = [
        o["spec"]["template"]["spec"]
        for o in objects(helm, {})
        if o["kind"] in {"Deployment", "Job"}
    ]
    assert len(pods) == 2
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def test_two_releases_share_no_name_without_a_namespace(helm: str) -> None:
    def names(release: str) -> set[tuple[str, str]]:
        return {(o["kind"], o["metadata"]["name"]) for o in objects(helm, {}, release)}

    assert names("penstock").isdisjoint(names("streams-penstock"))


@pytest.mark.parametrize(("is_wanted", "number"), [(True, 2), (False, 0)])
def test_a_release_beside_another_may_leave_the_crds_to_it(
    helm: str, is_wanted: bool, number: int
) -> None:
    answer = render(helm, {"crds": {"enabled": is_wanted}})
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.count("kind: CustomResourceDefinition\n") == number


def _role(found: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    return next(o for o in found if o["kind"] == kind and o["metadata"]["name"] == name)
