"""What the API server itself does with our kinds: refuses, fills in, explains, scales, shows."""

from __future__ import annotations

import builtins
import copy
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
import yaml
from pydantic import AwareDatetime, BaseModel
from tests.invalid_specs import INVALID, Invalid
from tests.process.apiserver.conftest import ROOT
from tests.process.apiserver.server import ApiServer

from penstock.spec.changes import revision_of
from penstock_operator.resources.status import Phase, StreamJobStatus
from penstock_operator.resources.streamjob import read_spec

pytestmark = [pytest.mark.process, pytest.mark.kube]

LAST_CHECKPOINT = {
    "id": 7,
    "path": "s3://bucket/checkpoints/chk-7",
    "completedAt": "2026-01-01T00:00:00Z",
    "duration": "2s",
    "size": "11.8Mi",
    "sizeBytes": 12345678,
}


def stream_job(name: str = "wordcount", **spec: Any) -> dict[str, Any]:
    return Invalid(spec, "", "", metadata={"name": name}).object


class Jobs:
    """The StreamJobs of one namespace."""

    def __init__(self, server: ApiServer, namespace: str) -> None:
        self.server = server
        self.namespace = namespace

    def kubectl(self, *arguments: str, given: Any = None) -> tuple[int, str]:
        done = self.server.kubectl("-n", self.namespace, *arguments, given=given, check=False)
        return done.returncode, done.stdout + done.stderr

    def replace(self, job: dict[str, Any]) -> str:
        """Put it there as it is, or say why not; empty when it was taken."""
        exists = self.kubectl("get", "streamjob", job["metadata"]["name"])[0] == 0
        verb = "replace" if exists else "create"
        code, said = self.kubectl(verb, "--validate=strict", "-f", "-", given=job)
        return said if code else ""

    def get(self, name: str = "wordcount") -> dict[str, Any]:
        return self.server.get("-n", self.namespace, "streamjob", name)

    def write_status(self, status: dict[str, Any], name: str = "wordcount") -> None:
        code, said = self.kubectl(
            "patch", "streamjob", name, "--subresource=status", "--type=merge",
            "-p", yaml.safe_dump({"status": status}),
        )  # fmt: skip
        assert code == 0, said


@pytest.fixture
def jobs(api_server: ApiServer, namespace: str) -> Jobs:
    return Jobs(api_server, namespace)


# ── wrong specs ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("case", [c for c in INVALID if c.by_api_server], ids=str)
def test_the_api_server_answers_a_wrong_spec_with_a_sentence(jobs: Jobs, case: Invalid) -> None:
    code, said = jobs.kubectl(
        "apply", "--dry-run=server", "--validate=strict", "-f", "-", given=case.object
    )
    assert code != 0
    assert (case.api_server or case.told) in said.replace('\\"', '"')
    assert case.at in said


@pytest.mark.parametrize(
    "path", sorted((ROOT / "examples").glob("*/streamjob.yaml")), ids=lambda p: p.parent.name
)
def test_an_example_for_a_laptop_is_taken_as_it_is(jobs: Jobs, path: Path) -> None:
    code, said = jobs.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", str(path))
    assert code == 0, said


# ── defaults ─────────────────────────────────────────────────────────────────────────────────────

FULL = {
    "parallelism": 2,
    "maxParallelism": 64,
    "state": {"backend": "RocksDB", "rocksdb": {}},
    "checkpoints": {"storage": "s3://bucket/checkpoints", "interval": "5s"},
    "restart": {"strategy": "FixedDelay", "attempts": 3},
    "worker": {"podTemplate": {"spec": {"nodeSelector": {"disk": "fast"}}}, "resources": {}},
    "parameters": {"input": "s3://corpus/", "limits": [1, 2.5, None, True]},
    "restore": {"rename": {"old": "new"}},
    "coordinator": {},
}


@pytest.mark.parametrize("spec", [{}, FULL], ids=["least", "much"])
def test_what_the_api_server_fills_in_makes_no_other_revision(
    jobs: Jobs, spec: dict[str, Any]
) -> None:
    written = stream_job(**spec)
    assert jobs.replace(written) == ""
    stored = jobs.get()
    assert stored["spec"] != written["spec"]
    before, after = read_spec(written), read_spec(stored)
    assert after.mistakes == ()
    assert revision_of(after.spec) == revision_of(before.spec)
    assert after.spec == before.spec


def test_defaults_stand_in_a_stored_object(jobs: Jobs) -> None:
    assert jobs.replace(stream_job()) == ""
    spec = jobs.get()["spec"]
    assert (spec["parallelism"], spec["desiredState"]) == (1, "Running")
    assert spec["checkpoints"]["interval"] == "10s"
    assert spec["worker"]["volume"]["size"] == "10Gi"
    assert spec["restart"] == {"strategy": "ExponentialDelay"}
    assert "state" not in spec


def test_free_form_fields_keep_what_nobody_knows(jobs: Jobs) -> None:
    assert jobs.replace(stream_job(**FULL)) == ""
    spec = jobs.get()["spec"]
    assert spec["worker"]["podTemplate"] == FULL["worker"]["podTemplate"]
    assert spec["parameters"] == FULL["parameters"]


# ── changes that are refused ─────────────────────────────────────────────────────────────────────

FIXED = [
    (("maxParallelism",), 64, 65, "number of key groups"),
    (("jobId",), "one", "other", "names the owner of the state"),
    (("checkpoints", "storage"), "s3://bucket/a", "s3://bucket/b", "holds the job's log"),
    (("worker", "volume", "storageClassName"), "fast", "slow", "disks that exist"),
]


def with_value(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    for name in reversed(path):
        value = {name: value}
    return stream_job(**value)


@pytest.mark.parametrize(("path", "first", "other", "told"), FIXED, ids=lambda v: str(v)[:30])
def test_what_is_fixed_is_neither_changed_nor_removed(
    jobs: Jobs, path: tuple[str, ...], first: Any, other: Any, told: str
) -> None:
    assert jobs.replace(stream_job()) == ""
    assert jobs.replace(with_value(path, first)) == "", "it may be set later"
    for changed in (with_value(path, other), stream_job()):
        said = jobs.replace(changed)
        assert told in said
        assert f"spec.{'.'.join(path)}: Forbidden" in said
    assert jobs.replace(with_value(path, first)) == ""


def test_a_volume_may_grow_and_never_shrinks_not_even_by_leaving_its_size_out(jobs: Jobs) -> None:
    def sized(size: str) -> dict[str, Any]:
        return with_value(("worker", "volume", "size"), size)

    assert jobs.replace(sized("20Gi")) == ""
    assert jobs.replace(sized("20480Mi")) == ""
    for smaller in (sized("19Gi"), sized("20G"), stream_job()):
        assert "a volume may grow and never shrinks" in jobs.replace(smaller)
    assert jobs.replace(sized("1Ti")) == ""


def test_what_the_status_says_is_in_force_cannot_be_set_otherwise(jobs: Jobs) -> None:
    assert jobs.replace(stream_job()) == ""
    jobs.write_status({"maxParallelism": 128, "jobId": "team.wordcount"})
    assert "it must be what status.maxParallelism says" in jobs.replace(
        stream_job(maxParallelism=64)
    )
    assert "names the owner" in jobs.replace(stream_job(jobId="other"))
    assert jobs.replace(stream_job(maxParallelism=128)) == ""
    assert jobs.replace(stream_job(maxParallelism=128, jobId="team.wordcount")) == ""


def test_a_status_can_always_be_written_whatever_the_spec_says(jobs: Jobs) -> None:
    assert jobs.replace(stream_job(parallelism=200)) == ""
    jobs.write_status({"maxParallelism": 128})
    assert jobs.get()["status"]["maxParallelism"] == 128


def test_what_a_savepoint_is_of_is_fixed(api_server: ApiServer, namespace: str) -> None:
    savepoint = {
        "apiVersion": "penstock.dev/v1alpha1",
        "kind": "Savepoint",
        "metadata": {"name": "before"},
        "spec": {"jobName": "wordcount"},
    }
    api_server.kubectl("-n", namespace, "create", "-f", "-", given=savepoint)
    stored = api_server.get("-n", namespace, "svp", "before")
    assert stored["spec"] == {
        "jobName": "wordcount",
        "format": "Canonical",
        "disposeOnDelete": False,
    }
    savepoint["spec"] = {"jobName": "other"}
    done = api_server.kubectl("-n", namespace, "replace", "-f", "-", given=savepoint, check=False)
    assert "spec.jobName: Forbidden: is fixed; a savepoint is of one job" in done.stderr


# ── scale ────────────────────────────────────────────────────────────────────────────────────────


def test_kubectl_scale_sets_parallelism(jobs: Jobs) -> None:
    assert jobs.replace(stream_job()) == ""
    jobs.write_status({"parallelism": 1, "selector": "penstock.dev/job=wordcount"})
    code, said = jobs.kubectl("scale", "sj/wordcount", "--replicas=3")
    assert code == 0, said
    assert jobs.get()["spec"]["parallelism"] == 3
    path = f"/apis/penstock.dev/v1alpha1/namespaces/{jobs.namespace}/streamjobs/wordcount/scale"
    scale = yaml.safe_load(jobs.kubectl("get", "--raw", path)[1])
    assert scale["spec"] == {"replicas": 3}
    assert scale["status"] == {"replicas": 1, "selector": "penstock.dev/job=wordcount"}


@pytest.mark.parametrize("where", ["spec", "status"])
def test_kubectl_scale_past_max_parallelism_is_refused(jobs: Jobs, where: str) -> None:
    assert jobs.replace(stream_job(**({"maxParallelism": 8} if where == "spec" else {}))) == ""
    if where == "status":
        jobs.write_status({"maxParallelism": 8})
    assert jobs.kubectl("scale", "sj/wordcount", "--replicas=8")[0] == 0
    code, said = jobs.kubectl("scale", "sj/wordcount", "--replicas=9")
    assert code != 0
    assert "spec.parallelism: Invalid value" in said
    assert "axParallelism" in said
    assert jobs.get()["spec"]["parallelism"] == 8


def test_a_scale_to_zero_is_refused_with_the_word_suspended(jobs: Jobs) -> None:
    assert jobs.replace(stream_job()) == ""
    code, said = jobs.kubectl("scale", "sj/wordcount", "--replicas=0")
    assert code != 0
    assert "write desiredState: Suspended" in said


# ── what a person sees ───────────────────────────────────────────────────────────────────────────


def test_get_shows_what_one_wants_to_know_at_a_glance(jobs: Jobs) -> None:
    assert jobs.replace(stream_job()) == ""
    jobs.write_status(
        {"phase": "Running", "parallelism": 1, "restarts": 2, "lastCheckpoint": LAST_CHECKPOINT}
    )
    for name in ("streamjobs", "sj", "penstock"):
        _, said = jobs.kubectl("get", name)
        head, row = said.splitlines()[:2]
        assert head.split() == ["NAME", "PHASE", "PARALLELISM", "CHECKPOINT", "RESTARTS", "AGE"]
        first, phase, parallelism, age, restarts, _ = row.split()
        assert first.endswith("wordcount")
        assert (phase, parallelism, restarts) == ("Running", "1", "2")
        assert age.endswith("d")


def test_what_deletes_all_deletes_no_job(jobs: Jobs) -> None:
    assert jobs.replace(stream_job()) == ""
    _, said = jobs.kubectl("delete", "all", "--all", "--dry-run=server")
    assert "streamjob" not in said


def test_get_savepoints_shows_where_they_lie(api_server: ApiServer, namespace: str) -> None:
    savepoint = {
        "apiVersion": "penstock.dev/v1alpha1",
        "kind": "Savepoint",
        "metadata": {"name": "before"},
        "spec": {"jobName": "wordcount"},
    }
    api_server.kubectl("-n", namespace, "create", "-f", "-", given=savepoint)
    status = {"phase": "Completed", "path": "s3://bucket/savepoints/savepoint-1", "size": "11.8Mi"}
    api_server.kubectl(
        "-n", namespace, "patch", "savepoint", "before", "--subresource=status", "--type=merge",
        "-p", yaml.safe_dump({"status": status}),
    )  # fmt: skip
    said = api_server.kubectl("-n", namespace, "get", "svp").stdout
    head, row = said.splitlines()
    assert head.split() == ["NAME", "JOB", "PHASE", "PATH", "SIZE", "AGE"]
    assert row.split()[:5] == ["before", "wordcount", *status.values()]


def fields(schema: dict[str, Any], path: str) -> Iterator[tuple[str, str]]:
    """Every field with its description; of a list or a map, those of what is in it."""
    inner = schema.get("items") or schema.get("additionalProperties") or schema
    for name, field in inner.get("properties", {}).items():
        yield f"{path}.{name}", field.get("description", "")
        yield from fields(field, f"{path}.{name}")


def explained(name: str) -> list[tuple[str, str]]:
    crd = yaml.safe_load((ROOT / "crds" / f"{name}s.yaml").read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    return [field for part in ("spec", "status") for field in fields(schema[part], part)]


@pytest.mark.parametrize("name", ["streamjob", "savepoint"])
def test_explain_answers_for_every_field(api_server: ApiServer, name: str) -> None:
    known = explained(name)
    assert all(description for _, description in known)
    parts = {path.rpartition(".")[0] for path, _ in known}
    for part in sorted(parts):
        said = api_server.kubectl("explain", f"{name}.{part}").stdout
        flat = " ".join(said.split())
        for path, description in known:
            if path.rpartition(".")[0] == part:
                assert " ".join(description.split()) in flat, path


# ── what the operator writes ─────────────────────────────────────────────────────────────────────

NOW = datetime(2026, 1, 1, 12, 30, 15, tzinfo=UTC)


def everything(annotation: Any) -> Any:
    """A value with every field of a model set, the last of each enumeration."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = annotation.model_fields.items()
        return annotation.model_construct(**{n: everything(f.annotation) for n, f in fields})
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return list(annotation)[-1]
    inner = [argument for argument in get_args(annotation) if argument is not type(None)]
    match get_origin(annotation):
        case builtins.dict:
            return {"savepoint": everything(inner[1])}
        case builtins.tuple:
            return (everything(inner[0]),)
        case None:
            plain = {str: "text", int: 3, bool: True, AwareDatetime: NOW}
            return plain[annotation]
    return everything(inner[0])


def test_a_whole_status_comes_back_as_the_operator_wrote_it(jobs: Jobs) -> None:
    assert jobs.replace(stream_job()) == ""
    status = everything(StreamJobStatus)
    written = status.model_dump(mode="json", by_alias=True)
    jobs.write_status(written)
    assert jobs.get()["status"] == written
    assert StreamJobStatus.model_validate(jobs.get()["status"]) == status


def test_fields_of_a_status_that_are_none_are_left_out(jobs: Jobs) -> None:
    assert jobs.replace(stream_job()) == ""
    jobs.write_status(everything(StreamJobStatus).model_dump(mode="json", by_alias=True))
    status = StreamJobStatus(phase=Phase.RUNNING)
    job = jobs.get() | {"status": status.model_dump(mode="json", by_alias=True)}
    jobs.server.kubectl("replace", "--subresource=status", "-f", "-", given=job)
    stored = jobs.get()["status"]
    assert None not in stored.values()
    assert StreamJobStatus.model_validate(stored) == status


# ── other versions ───────────────────────────────────────────────────────────────────────────────


def without(schema: dict[str, Any], *path: str) -> dict[str, Any]:
    older = copy.deepcopy(schema)
    here = older["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for name in path[:-1]:
        here = here["properties"][name]
    del here["properties"][path[-1]]
    return older


@pytest.fixture
def with_crd(api_server: ApiServer) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Puts another StreamJob CRD in the place of ours, and ours back."""
    ours = yaml.safe_load((ROOT / "crds" / "streamjobs.yaml").read_text())

    def put(crd: dict[str, Any]) -> None:
        api_server.kubectl("replace", "-f", "-", given=crd)

    yield put
    put(ours)


def without_rules(schema: Any) -> Any:
    match schema:
        case dict():
            kept = (item for item in schema.items() if item[0] != "x-kubernetes-validations")
            return {name: without_rules(value) for name, value in kept}
        case list():
            return [without_rules(value) for value in schema]
    return schema


def test_an_object_older_than_its_rules_can_be_written_about_and_let_go(
    jobs: Jobs, with_crd: Callable[[dict[str, Any]], None]
) -> None:
    ours = yaml.safe_load((ROOT / "crds" / "streamjobs.yaml").read_text())
    with_crd(without_rules(ours))
    old = stream_job(checkpoints={"storage": "./state", "minPause": "1s", "maxConcurrent": 2})
    old["metadata"]["finalizers"] = ["penstock.dev/streamjob"]
    until(lambda: jobs.replace(old) == "")
    with_crd(ours)
    until(lambda: "not shared by pods" in jobs.replace(stream_job(savepoints={"storage": "./x"})))
    jobs.write_status({"phase": "Failed"})
    jobs.server.kubectl("-n", jobs.namespace, "delete", "sj/wordcount", "--wait=false")
    jobs.server.kubectl(
        "-n", jobs.namespace, "patch", "sj/wordcount", "--type=merge",
        "-p", '{"metadata": {"finalizers": null}}',
    )  # fmt: skip
    assert jobs.kubectl("get", "sj/wordcount")[0] != 0


def until(is_so: Callable[[], bool]) -> None:
    """A new schema is taken up a little later."""
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline


MOVE = {"kind": "Upgrade", "step": "Stopping", "id": "x"}


def status_after_writing(
    jobs: Jobs, status: dict[str, Any], *, expected: dict[str, Any] | None
) -> dict[str, Any]:
    """What stands there once `move` is as expected: a new schema is taken up a little later."""
    deadline = time.monotonic() + 30
    while True:
        jobs.write_status(status)
        stored = jobs.get()["status"]
        if stored.get("move") == expected:
            return stored
        assert time.monotonic() < deadline, stored


def test_an_older_schema_drops_what_it_does_not_know_without_a_word_and_tells_its_version(
    jobs: Jobs, with_crd: Callable[[dict[str, Any]], None]
) -> None:
    ours = yaml.safe_load((ROOT / "crds" / "streamjobs.yaml").read_text())
    older = without(ours, "status", "move")
    older["metadata"]["annotations"]["penstock.dev/schema-version"] = "0"
    assert jobs.replace(stream_job()) == ""
    with_crd(older)
    assert status_after_writing(jobs, {"phase": "Upgrading", "move": MOVE}, expected=None) == {
        "phase": "Upgrading"
    }
    crd = jobs.server.get("crd", "streamjobs.penstock.dev")
    assert crd["metadata"]["annotations"]["penstock.dev/schema-version"] == "0"
    with_crd(ours)
    status_after_writing(jobs, {"move": MOVE}, expected=MOVE)
