"""The tutorial's page on a cluster: every command, and what it shows."""

import os
from pathlib import Path

import pytest
from tests.e2e.support_kube import Namespace, kubectl
from tests.e2e.support_output import keys, s3
from tests.pages import do_as_told

PAGE = Path(__file__).parents[2] / "docs" / "tutorials" / "kubernetes.md"
BUCKET = "playground"


@pytest.mark.timeout(1200)
def test_the_tutorial_does_what_it_says(namespace: Namespace, bucket: str, tmp_path: Path) -> None:
    if BUCKET not in {b["Name"] for b in s3().list_buckets()["Buckets"]}:
        s3().create_bucket(Bucket=BUCKET)
    for key in keys(f"s3://{BUCKET}"):
        s3().delete_object(Bucket=BUCKET, Key=key)
    config = tmp_path / "kubeconfig"
    config.write_text(kubectl("config", "view", "--raw", "--minify"))
    kubectl(
        f"--kubeconfig={config}", "config", "set-context", "--current",
        f"--namespace={namespace.name}",
    )  # fmt: skip
    folder = tmp_path / "visits"
    folder.mkdir()
    do_as_told(PAGE, folder, {**os.environ, "KUBECONFIG": str(config)}, patience_s=1100)
