"""A cluster for `make e2e` and `make playground`: images, the chart, an S3 server, and down again.

Everything that differs between machines is a variable of the Makefile, handed over in the
environment. A cluster of that name that is there already is used and left standing.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAMESPACE = "penstock-system"
NO_TESTS = 5
"""Pytest's exit code when it found none."""
S3 = ROOT / "tests" / "e2e" / "s3.yaml"
_BEGUN_S = time.monotonic()


def main(arguments: list[str]) -> int:
    """The process: `up`, `down`, or `e2e ARGUMENTS…` for pytest."""
    match arguments:
        case ["up"]:
            create()
            install()
            furnish()
            return 0
        case ["down"]:
            delete()
            return 0
        case ["e2e", *others]:
            return end_to_end(others)
    print("usage: cluster.py up | down | e2e [ARGUMENTS OF PYTEST]", file=sys.stderr)
    return 2


def end_to_end(arguments: list[str]) -> int:
    """Make what is missing, run the tests, and take down what was made; pytest's exit code."""
    is_ours = create()
    try:
        install()
        chosen = variable("E2E")
        together = tests(f"({chosen}) and not alone", "-n", variable("E2E_JOBS"), *arguments)
        return together or tests(f"({chosen}) and alone", *arguments)
    finally:
        if is_ours:
            delete()


def tests(chosen: str, *arguments: str) -> int:
    """Run those tests, none of which may be passed over; pytest's exit code, 0 where there is none."""
    command = [sys.executable, "-m", "pytest", "tests/e2e", "-m", chosen, *arguments]
    looked = subprocess.run(
        [*command, "--collect-only"], cwd=ROOT, capture_output=True, check=False
    )
    # A run of no test would look like one in which nothing was tested.
    if looked.returncode == NO_TESTS:
        step(f"no tests of '{chosen}'")
        return 0
    step(f"pytest tests/e2e -m '{chosen}'")
    required = {**os.environ, "PENSTOCK_REQUIRE": "e2e"}
    return subprocess.run(command, cwd=ROOT, env=required, check=False).returncode


def create() -> bool:
    """Make the cluster, if there is none of that name; whether it was made."""
    if variable("CLUSTER") in output("kind", "get", "clusters").split():
        step(f"the cluster {variable('CLUSTER')} stands already")
        return False
    step(f"cluster {variable('CLUSTER')}")
    Path(variable("KUBECONFIG")).parent.mkdir(parents=True, exist_ok=True)
    run(*shlex.split(variable("KIND_UP")))
    return True


def delete() -> None:
    """Take the cluster down."""
    step(f"cluster {variable('CLUSTER')} goes")
    run(*shlex.split(variable("KIND_DOWN")))


def install() -> None:
    """Load the images, install S3 and the chart, or bring them up to date."""
    tag = variable("TAG")
    step("images into the cluster")
    images = [f"penstock-worker:{tag}", f"penstock-operator:{tag}"]
    if job_image := os.environ.get("PENSTOCK_E2E_JOB_IMAGE"):
        images.append(job_image)
    s3 = variable("S3_IMAGE")
    if output("docker", "images", "--quiet", s3):  # else the cluster pulls it by itself
        images.append(s3)
    run("kind", "load", "docker-image", "--name", variable("CLUSTER"), *images)
    step("S3 server")
    kubectl("apply", "--filename", "-", text=S3.read_text().replace("S3_IMAGE", s3))
    step("chart")
    run(
        *["helm", "upgrade", "--install", "penstock", "helm/penstock"],
        *["--namespace", NAMESPACE, "--create-namespace", "--set", "failPoints=true"],
        *["--set", f"image.tag={tag}", "--set", f"workerImage.tag={tag}"],
    )
    # An image of the same tag may be another one.
    kubectl("-n", NAMESPACE, "rollout", "restart", "deployment/penstock")
    kubectl("-n", "penstock-s3", "rollout", "status", "deployment/s3", "--timeout=120s")
    kubectl("-n", NAMESPACE, "rollout", "status", "deployment/penstock", "--timeout=120s")


def furnish() -> None:
    """A bucket and its Secret, for whoever plays."""
    step("a bucket")
    image = f"penstock-worker:{variable('TAG')}"
    text = (ROOT / "scripts" / "playground.yaml").read_text().replace("WORKER_IMAGE", image)
    kubectl("delete", "job", "make-bucket", "--ignore-not-found")
    kubectl("apply", "--filename", "-", text=text)
    kubectl("wait", "--for=condition=complete", "job/make-bucket", "--timeout=120s")


def kubectl(*arguments: str, text: str | None = None) -> None:
    """kubectl, on the cluster of $KUBECONFIG."""
    run("kubectl", *arguments, text=text)


def run(*command: str, text: str | None = None) -> None:
    """A command whose failure ends this process."""
    done = subprocess.run(command, cwd=ROOT, input=text, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: {shlex.join(command)} ended with {done.returncode}")


def output(*command: str) -> str:
    """What a command prints."""
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: {shlex.join(command)} ended with {done.returncode}")
    return done.stdout


def variable(name: str) -> str:
    """A variable that the Makefile sets."""
    if name not in os.environ:
        sys.exit(f"error: {name} is not set; start this by make e2e or make playground")
    return os.environ[name]


def step(what: str) -> None:
    """One line of progress."""
    print(f"[{time.monotonic() - _BEGUN_S:4.0f}s] {what}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
