"""What the operator makes for three jobs, whole: nothing changes unseen.

    PENSTOCK_WRITE_GOLDEN=1 .venv/bin/python -m pytest -q tests/golden/test_operator.py

draws the files anew; read the difference before you commit it.
"""

import os
from pathlib import Path

import pytest
import yaml

from penstock.spec.changes import revision_of
from penstock.spec.streamjob import StreamJobSpec
from penstock_operator.manifests import access, config, coordinator, short, workers
from penstock_operator.manifests.names import Job
from penstock_operator.manifests.record import Record

GOLDENS = Path(__file__).parent / "operator"
STORAGE = {"storage": "s3://bucket/checkpoints"}
JOBS = {
    "minimal": {"entrypoint": "wordcount:job", "checkpoints": STORAGE},
    "script": {"script": "def job(env):\n    ...\n", "parallelism": 2, "checkpoints": STORAGE},
    "everything": {
        "image": "registry.example/wordcount:1.4.0",
        "entrypoint": "wordcount:job",
        "parameters": {"input": "s3://corpus/", "limit": 3},
        "parallelism": 4,
        "maxParallelism": 256,
        "serviceAccountName": "wordcount",
        "jobId": "words",
        "state": {"backend": "RocksDB", "rocksdb": {"memory": "1Gi"}},
        "checkpoints": STORAGE | {"interval": "30s", "retained": 5},
        "savepoints": {"storage": "s3://bucket/savepoints"},
        "storageCredentials": {
            "secretName": "s3-credentials",
            "endpoint": "https://s3.example",
            "caBundle": {"configMapName": "s3-certificates"},
        },
        "upgrade": {"allowNonRestoredState": True},
        "restore": {"from": "before-the-move"},
        "worker": {
            "heartbeatTimeout": "20s",
            "resources": {"requests": {"cpu": "500m", "memory": "2Gi"}},
            "podTemplate": {
                "metadata": {"annotations": {"example.com/team": "words"}},
                "spec": {
                    "nodeSelector": {"disk": "fast"},
                    "containers": [
                        {"name": "penstock", "env": [{"name": "TZ", "value": "UTC"}]},
                        {"name": "proxy", "image": "registry.example/proxy:1"},
                    ],
                },
            },
            "volume": {"size": "50Gi", "storageClassName": "fast"},
        },
        "coordinator": {"resources": {"limits": {"memory": "512Mi"}}},
    },
}


class Readable(yaml.SafeDumper):
    """Code and manifests as blocks, nothing by reference."""

    def ignore_aliases(self, data):
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


Readable.add_representer(str, _text)


def rendered(spec: dict) -> str:
    model = StreamJobSpec.model_validate(spec)
    job, revision = Job("shop", "words", "00000000-0000-0000-0000-00000000feed"), revision_of(model)
    record = Record.of(
        job, model, revision, default_image="penstock-worker:1", cluster="cluster-uid"
    )
    claims = workers.claim_templates(job, model.worker.volume)
    objects = [
        access.service_account(job),
        access.token_secret(job, "token"),
        config.config_map(job, revision, model, None),
        coordinator.coordinator_service(job),
        workers.worker_service(job),
        workers.disruption_budget(job),
        access.network_policy(job),
        coordinator.deployment(job, revision, record.coordinator),
        workers.stateful_set(
            job, revision, record.worker, replicas=model.parallelism, claims=claims
        ),
        short.check_pod(job, record, "latest"),
        short.disposal_pod(job, record, "s3://bucket/savepoints/savepoint-1-2"),
        record.controller_revision(job, 1),
    ]
    return yaml.dump_all(objects, Dumper=Readable, sort_keys=False, width=100)


@pytest.mark.parametrize("name", JOBS)
def test_what_is_made_for_a_job_is_as_it_was(name):
    path = GOLDENS / f"{name}.yaml"
    found = rendered(JOBS[name])
    if os.environ.get("PENSTOCK_WRITE_GOLDEN"):
        path.write_text(found)
    assert found == path.read_text()
