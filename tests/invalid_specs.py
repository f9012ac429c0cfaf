"""StreamJobs that nobody should get far with, and the sentence that each is answered with.

Read twice: by tests of the manifest's model, which `penstock run` and the Kubernetes operator check
with, and by tests that give each to a real API server.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from penstock.spec.parts.fields import NOT_A_JOB_ID

GOOD = {"entrypoint": "wordcount:job"}
DURATION = "is not a duration; write 10s, 500ms, 5m, 1h"
A_NAME = "is not a name; use a-z, 0-9 and -, beginning and ending with neither -"


@dataclass(frozen=True)
class Invalid:
    """`spec` replaces fields of a good one; a None takes the field away.

    `told` is what the model says of `at`, `api_server` what the API server says if it is in other
    words; `by_api_server` False where only the model knows. `on_a_cluster` is what a laptop takes.
    """

    spec: dict[str, Any]
    at: str
    told: str
    api_server: str | None = None
    by_api_server: bool = True
    on_a_cluster: bool = False
    metadata: dict[str, Any] = field(default_factory=lambda: {"name": "wordcount"})

    @property
    def object(self) -> dict[str, Any]:
        """The whole StreamJob."""
        spec = {name: value for name, value in (GOOD | self.spec).items() if value is not None}
        return {
            "apiVersion": "penstock.dev/v1alpha1",
            "kind": "StreamJob",
            "metadata": self.metadata,
            "spec": spec,
        }

    def __str__(self) -> str:
        return f"{self.at}: {self.told[:40]}"


def unknown(spec: dict[str, Any], at: str, told: str) -> Invalid:
    """A field that does not exist; the API server names it under strict validation."""
    return Invalid(spec, at, told, api_server=f'unknown field "{at}"')


INVALID = (
    # Fields that do not exist.
    unknown({"paralellism": 4}, "spec.paralellism", "no such field; did you mean parallelism?"),
    unknown({"max_parallelism": 4}, "spec.max_parallelism", "no such field; did you mean maxParallelism?"),
    unknown({"interval": "4s"}, "spec.interval", "no such field here; did you mean spec.checkpoints.interval?"),
    unknown({"frobnicate": 4}, "spec.frobnicate", "no such field"),
    unknown({"checkpoints": {"intervall": "4s"}}, "spec.checkpoints.intervall", "no such field; did you mean interval?"),
    unknown({"worker": {"volume": {"sise": "1Gi"}}}, "spec.worker.volume.sise", "no such field; did you mean size?"),
    unknown({"storageCredentials": {"secret": "s3"}}, "spec.storageCredentials.secret", "no such field; did you mean secretName?"),
    # Which code runs.
    Invalid({"entrypoint": None}, "spec.entrypoint", "is missing; write module:function, or the code itself in script"),
    Invalid({"script": "def job(env): ..."}, "spec.entrypoint", "script is given as well; a job has one of the two"),
    Invalid({"entrypoint": "wordcount.job"}, "spec.entrypoint", '"wordcount.job" is not module:function, as in wordcount:job'),
    Invalid({"entrypoint": None, "script": " \n"}, "spec.script", "is empty; write the job's Python code"),
    Invalid({"entrypoint": None, "script": "#" * 65537}, "spec.script", "has 65,537 bytes; at most 64 KiB fit, put more into an image", api_server="Too long: may not be more than 65536"),
    Invalid({"image": 3}, "spec.image", "3 is not text; put it in quotes", api_server='must be of type string: "integer"'),
    Invalid({"parameters": ["a"]}, "spec.parameters", "must be a block of fields, not a list", api_server='must be of type object: "array"'),
    # How wide it is.
    Invalid({"parallelism": 0}, "spec.parallelism", "is 0; to stop the job and keep its state, write desiredState: Suspended"),
    Invalid({"parallelism": -1}, "spec.parallelism", "is -1; at least 1 is needed", api_server="is negative; at least 1 is needed"),
    Invalid({"parallelism": "four"}, "spec.parallelism", '"four" is not a whole number', api_server='must be of type integer: "string"'),
    Invalid({"parallelism": 9, "maxParallelism": 8}, "spec.parallelism", "is 9, more than maxParallelism, which is 8", api_server="is more than maxParallelism"),
    Invalid({"maxParallelism": 40000}, "spec.maxParallelism", "is 40000; at most 32768 is allowed", api_server="should be less than or equal to 32768"),
    Invalid({"maxParallelism": 0}, "spec.maxParallelism", "is 0; at least 1 is needed", api_server="should be greater than or equal to 1"),
    Invalid({"desiredState": "Stopped"}, "spec.desiredState", '"Stopped" is none of Running, Suspended', api_server='Unsupported value: "Stopped": supported values: "Running", "Suspended"'),
    # Who it is.
    Invalid({"jobId": "My_Job"}, "spec.jobId", f'"My_Job" {NOT_A_JOB_ID}'),
    Invalid({"jobId": "a" * 41}, "spec.jobId", f'"{"a" * 41}" {NOT_A_JOB_ID}'),
    Invalid({"jobId": "shop.eu.words"}, "spec.jobId", f'"shop.eu.words" {NOT_A_JOB_ID}'),
    Invalid({}, "metadata.name", "has 41 characters; at most 40 are allowed", api_server="metadata.name has too many characters; at most 40 are allowed", metadata={"name": "a" * 41}),
    Invalid({}, "metadata.name", f'"word.count" {A_NAME}', api_server=f"metadata.name {A_NAME}", metadata={"name": "word.count"}),
    # Where state is.
    Invalid({"state": {"backend": "redis"}}, "spec.state.backend", '"redis" is none of Memory, FileSystem, RocksDB; nor a factory, package.module:name'),
    Invalid({"state": {"rocksdb": {"memory": "lots"}}}, "spec.state.rocksdb.memory", '"lots" is not a size; write 512Mi, 10Gi, 500M'),
    Invalid({"state": {"rocksdb": {"localDirectories": ["/ok", "here"]}}}, "spec.state.rocksdb.localDirectories[1]", '"here" is not an absolute path'),
    Invalid({"state": {"rocksdb": {"localDirectories": ["/a"] * 17}}}, "spec.state.rocksdb.localDirectories", "has 17 items; at most 16 are allowed", api_server="must have at most 16 items"),
    Invalid({"checkpoints": {"storage": "gs://bucket"}}, "spec.checkpoints.storage", '"gs://bucket" is not a storage; write s3://bucket/folder, file:///folder or a folder', api_server='"gs://bucket" is not shared by pods; on a cluster write s3://bucket/folder'),
    Invalid({"checkpoints": {"storage": "file:///state"}}, "spec.checkpoints.storage", '"file:///state" is not shared by pods; on a cluster write s3://bucket/folder', on_a_cluster=True),
    Invalid({"savepoints": {"storage": "./saved"}}, "spec.savepoints.storage", '"./saved" is not shared by pods; on a cluster write s3://bucket/folder', on_a_cluster=True),
    Invalid({"storageCredentials": {"caBundle": {}}}, "spec.storageCredentials.caBundle.configMapName", "is missing", api_server="Required value"),
    Invalid({"worker": {"volume": {"size": "-1"}}}, "spec.worker.volume.size", '"-1" is not a size; write 512Mi, 10Gi, 500M'),
    # When it is saved.
    Invalid({"checkpoints": {"interval": "10 seconds"}}, "spec.checkpoints.interval", f'"10 seconds" {DURATION}'),
    Invalid({"checkpoints": {"timeout": "0s"}}, "spec.checkpoints.timeout", "must be longer than 0s"),
    Invalid({"worker": {"heartbeatTimeout": "1999ms"}}, "spec.worker.heartbeatTimeout", "must be at least 2s; a heartbeat comes every second"),
    Invalid({"worker": {"progressTimeout": "1ms"}}, "spec.worker.progressTimeout", "must be at least 2s; a heartbeat comes every second"),
    Invalid({"checkpoints": {"minPause": "1s", "maxConcurrent": 2}}, "spec.checkpoints.minPause", "needs maxConcurrent 1, which is 2", api_server="needs maxConcurrent 1"),
    Invalid({"checkpoints": {"retained": 0}}, "spec.checkpoints.retained", "is 0; at least 1 is needed", api_server="should be greater than or equal to 1"),
    Invalid({"checkpoints": {"mode": "AtMostOnce"}}, "spec.checkpoints.mode", '"AtMostOnce" is none of ExactlyOnce, AtLeastOnce; did you mean AtLeastOnce?', api_server='supported values: "ExactlyOnce", "AtLeastOnce"'),
    Invalid({"savepoints": {"schedule": "daily"}}, "spec.savepoints.schedule", '"daily" is not a schedule; write five numbers or *: "0 3 * * *" is every day at 03:00 UTC'),
    Invalid({"savepoints": {"schedule": "0 25 * * *"}}, "spec.savepoints.schedule", '"25" is not an hour; 0 to 23, a range, a list or *', by_api_server=False),
    # What happens when it fails or changes.
    Invalid({"errors": {"policy": "DeadLetter"}}, "spec.errors.deadLetters", "is missing; policy DeadLetter needs a folder or s3:// URL"),
    Invalid({"errors": {"deadLetters": "./bad"}}, "spec.errors.deadLetters", "needs policy DeadLetter, which is Fail"),
    Invalid({"restart": {"strategy": "FixedDelay", "maxDelay": "3s"}}, "spec.restart.maxDelay", "needs strategy ExponentialDelay, which is FixedDelay"),
    Invalid({"restart": {"attempts": 3}}, "spec.restart.attempts", "needs strategy FixedDelay or FailureRate, which is ExponentialDelay"),
    Invalid({"restart": {"strategy": "FixedDelay", "window": "1m"}}, "spec.restart.window", "needs strategy FailureRate, which is FixedDelay"),
    Invalid({"restart": {"initialDelay": "1m", "maxDelay": "1s"}}, "spec.restart.maxDelay", "is shorter than initialDelay"),
    Invalid({"restart": {"initialDelay": "2m"}}, "spec.restart.maxDelay", "is shorter than initialDelay"),
    Invalid({"upgrade": {"mode": "Sometimes"}}, "spec.upgrade.mode", '"Sometimes" is none of Savepoint, LastState, Stateless', api_server='supported values: "Savepoint", "LastState", "Stateless"'),
    Invalid({"upgrade": {"stableAfter": {"checkpoints": 0}}}, "spec.upgrade.stableAfter.checkpoints", "is 0; at least 1 is needed", api_server="should be greater than or equal to 1"),
    Invalid({"restore": {"rename": {"a": 1}}}, "spec.restore.rename.a", "1 is not text; put it in quotes", api_server='must be of type string: "integer"'),
    Invalid({"deletion": {"policy": "Keep"}}, "spec.deletion.policy", '"Keep" is none of Savepoint, Retain, Delete', api_server='supported values: "Savepoint", "Retain", "Delete"'),
)  # fmt: skip
