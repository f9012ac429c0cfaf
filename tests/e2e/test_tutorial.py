"""The tutorial's page on a cluster: every command, and what it shows."""

import os
from pathlib import Path
from typing import Any

import boto3
import pytest
from tests.e2e.support_kube import Namespace, kubectl
from tests.pages import do_as_told

PAGE = Path(__file__).parents[2] / "docs" / "tutorials" / "kubernetes.md"
BUCKET = "playground"


@pytest.mark.timeout(1200)
def test_the_tutorial_does_what_it_says(namespace: Namespace, bucket: str, tmp_path: Path) -> None:
    client: Any = boto3.client("s3")
    if BUCKET in {b["Name"] for b in client.list_buckets()["Buckets"]}:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        for key in [item["Key"] for page in pages for item in page.get("Contents", ())]:
            client.delete_object(Bucket=BUCKET, Key=key)
    else:
        client.create_bucket(Bucket=BUCKET)
    config = tmp_path / "kubeconfig"
    config.write_text(kubectl("config", "view", "--raw", "--minify"))
    kubectl(
        f"--kubeconfig={config}", "config", "set-context", "--current",
        f"--namespace={namespace.name}",
    )  # fmt: skip
    folder = tmp_path / "visits"
    folder.mkdir()
    do_as_told(PAGE, folder, {**os.environ, "KUBECONFIG": str(config)}, patience_s=1100)
