"""Every mistake in a manifest is told at once: its line, its field, a sentence, what to write."""

import pickle
from itertools import pairwise
from pathlib import Path

import pytest

from penstock.core.errors import Rejected
from penstock.spec.loading import draft_of, load_manifest, read_manifest, validate
from penstock.spec.mistakes import InvalidManifest, Mistake
from penstock.spec.parts.fields import NOT_A_JOB_ID

HEAD = """\
apiVersion: penstock.dev/v1alpha1
kind: StreamJob
metadata: {name: wordcount}
spec:
  entrypoint: wordcount:job
"""
DURATION = "is not a duration; write 10s, 500ms, 5m, 1h"
EMPTY = "is empty; write a value, or leave the line out"
SECOND_COLON = "a second colon on one line, or a line that is indented too far"
IN_QUOTES = 'text with ": " in it needs quotes'


def told(text):
    draft = validate(text, source="streamjob.yaml")
    assert (draft.job is None) or draft.mistakes == [] or all(m.message for m in draft.mistakes)
    return [(m.line, m.field, m.message) for m in draft.mistakes]


# The first line of each text is line 6 of its file.
ONE_FIELD = [
    ("paralellism: 4", "spec.paralellism", "no such field; did you mean parallelism?"),
    ("max_parallelism: 4", "spec.max_parallelism", "no such field; did you mean maxParallelism?"),
    (
        "interval: 4s",
        "spec.interval",
        "no such field here; did you mean spec.checkpoints.interval?",
    ),
    ("frobnicate: 4", "spec.frobnicate", "no such field"),
    ("parallelism: four", "spec.parallelism", '"four" is not a whole number'),
    ('parallelism: "4"', "spec.parallelism", '"4" is not a whole number'),
    ("parallelism: 1.5", "spec.parallelism", "1.5 is not a whole number"),
    ("parallelism: true", "spec.parallelism", "true is not a whole number"),
    ("parallelism: [1]", "spec.parallelism", "a list is not a whole number"),
    ("parallelism: -1", "spec.parallelism", "is -1; at least 1 is needed"),
    ("parallelism:", "spec.parallelism", EMPTY),
    (
        "parallelism: 0",
        "spec.parallelism",
        "is 0; to stop the job and keep its state, write desiredState: Suspended",
    ),
    (
        "{parallelism: 9, maxParallelism: 8}",
        "spec.parallelism",
        "is 9, more than maxParallelism, which is 8",
    ),
    ("maxParallelism: 40000", "spec.maxParallelism", "is 40000; at most 32768 is allowed"),
    ("image: 3", "spec.image", "3 is not text; put it in quotes"),
    ("image: [a]", "spec.image", "must be text, not a list"),
    ("image: ''", "spec.image", EMPTY),
    (f"image: {'a' * 1025}", "spec.image", "has 1025 characters; at most 1024 are allowed"),
    (
        "desiredState: Stopped",
        "spec.desiredState",
        '"Stopped" is none of Running, Suspended',
    ),
    (
        "desiredState: suspended",
        "spec.desiredState",
        '"suspended" is none of Running, Suspended; did you mean Suspended?',
    ),
    (
        "jobId: My_Job",
        "spec.jobId",
        f'"My_Job" {NOT_A_JOB_ID}',
    ),
    *(
        (f"jobId: {id}", "spec.jobId", f'"{id}" {NOT_A_JOB_ID}')
        for id in ("a" * 41, "shop." + "a" * 41, "a" * 64 + ".b", "a.b.c", "shop.", ".words", "-a")
    ),
    ("parameters: [a]", "spec.parameters", "must be a block of fields, not a list"),
    ("state: RocksDB", "spec.state", 'must be a block of fields, not "RocksDB"'),
    ("checkpoints:", "spec.checkpoints", EMPTY),
    (
        "state: {backend: rocksdb}",
        "spec.state.backend",
        '"rocksdb" is none of Memory, FileSystem, RocksDB; did you mean RocksDB?',
    ),
    (
        "state: {backend: redis}",
        "spec.state.backend",
        '"redis" is none of Memory, FileSystem, RocksDB; nor a factory, package.module:name',
    ),
    ("state: {localRecovery: 1}", "spec.state.localRecovery", "1 is not true or false"),
    (
        "state: {rocksdb: {memory: lots}}",
        "spec.state.rocksdb.memory",
        '"lots" is not a size; write 512Mi, 10Gi, 500M',
    ),
    (
        "state: {rocksdb: {localDirectories: [/ok, here]}}",
        "spec.state.rocksdb.localDirectories[1]",
        '"here" is not an absolute path',
    ),
    (
        "state: {rocksdb: {localDirectories: /ok}}",
        "spec.state.rocksdb.localDirectories",
        'must be a list, not "/ok"',
    ),
    ("checkpoints: {interval: 10 seconds}", "spec.checkpoints.interval", f'"10 seconds" {DURATION}'),
    ("checkpoints: {interval: 10}", "spec.checkpoints.interval", f"10 {DURATION}"),
    (
        f"checkpoints: {{interval: {'9' * 400}h}}",
        "spec.checkpoints.interval",
        f'"{"9" * 60}…" {DURATION}',
    ),
    ("checkpoints: {timeout: 0s}", "spec.checkpoints.timeout", "must be longer than 0s"),
    (
        "worker: {heartbeatTimeout: 1ms}",
        "spec.worker.heartbeatTimeout",
        "must be at least 2s; a heartbeat comes every second",
    ),
    (
        "checkpoints: {minPause: 1s, maxConcurrent: 2}",
        "spec.checkpoints.minPause",
        "needs maxConcurrent 1, which is 2",
    ),
    ("checkpoints: {retained: 0}", "spec.checkpoints.retained", "is 0; at least 1 is needed"),
    (
        "checkpoints: {storage: 'gs://bucket'}",
        "spec.checkpoints.storage",
        '"gs://bucket" is not a storage; write s3://bucket/folder, file:///folder or a folder',
    ),
    (
        "checkpoints: {storage: 's3:///folder'}",
        "spec.checkpoints.storage",
        '"s3:///folder" is not a storage; write s3://bucket/folder, file:///folder or a folder',
    ),
    (
        r'savepoints: {storage: "a\0b"}',
        "spec.savepoints.storage",
        r'"a\u0000b" is not a storage; write s3://bucket/folder, file:///folder or a folder',
    ),
    (
        "checkpoints: {mode: AtMostOnce}",
        "spec.checkpoints.mode",
        '"AtMostOnce" is none of ExactlyOnce, AtLeastOnce; did you mean AtLeastOnce?',
    ),
    (
        "savepoints: {schedule: daily}",
        "spec.savepoints.schedule",
        '"daily" is not a schedule; write five numbers or *: "0 3 * * *" is every day at 03:00 UTC',
    ),
    (
        "savepoints: {schedule: '0 25 * * *'}",
        "spec.savepoints.schedule",
        '"25" is not an hour; 0 to 23, a range, a list or *',
    ),
    (
        "savepoints: {schedule: '0 3 * * 5-1'}",
        "spec.savepoints.schedule",
        '"5-1" is not a weekday; 0 to 7, a range, a list or *',
    ),
    (
        "savepoints: {keep: {age: 7d}}",
        "spec.savepoints.keep.age",
        f'"7d" {DURATION}',
    ),
    (
        "storageCredentials: {caBundle: {}}",
        "spec.storageCredentials.caBundle.configMapName",
        "is missing",
    ),
    (
        "errors: {policy: DeadLetter}",
        "spec.errors.deadLetters",
        "is missing; policy DeadLetter needs a folder or s3:// URL",
    ),
    (
        "errors: {deadLetters: ./bad}",
        "spec.errors.deadLetters",
        "needs policy DeadLetter, which is Fail",
    ),
    (
        "errors: {policy: DeadLetter, deadLeters: ./bad}",
        "spec.errors.deadLeters",
        "no such field; did you mean deadLetters?",
    ),
    (
        "restart: {strategy: FixedDelay, maxDelay: 3s}",
        "spec.restart.maxDelay",
        "needs strategy ExponentialDelay, which is FixedDelay",
    ),
    (
        "restart: {attempts: 3}",
        "spec.restart.attempts",
        "needs strategy FixedDelay or FailureRate, which is ExponentialDelay",
    ),
    (
        "restart: {initialDelay: 1m, maxDelay: 1s}",
        "spec.restart.maxDelay",
        "is shorter than initialDelay",
    ),
    ("restore: {rename: {a: 1}}", "spec.restore.rename.a", "1 is not text; put it in quotes"),
    ("upgrade: {mode: 7}", "spec.upgrade.mode", "7 is none of Savepoint, LastState, Stateless"),
    ("upgrade: {stableAfter: {checkpoints: 0}}", "spec.upgrade.stableAfter.checkpoints",
     "is 0; at least 1 is needed"),
    ("worker: {volume: {size: -1}}", "spec.worker.volume.size",
     "-1 is not a size; write 512Mi, 10Gi, 500M"),
    ("entrypoint: other:job", "spec.entrypoint", "given twice; first on line 5"),
    ("script: 'def job(env): ...'", "spec.script", None),
]  # fmt: skip


@pytest.mark.parametrize(("text", "field", "message"), ONE_FIELD, ids=[c[0] for c in ONE_FIELD])
def test_a_wrong_field_is_told_with_its_line(text, field, message):
    if message is None:
        expected = [(5, "spec.entrypoint", "script is given as well; a job has one of the two")]
        assert told(f"{HEAD}  {text}\n") == expected
        return
    if text.startswith("{"):
        body = "".join(f"  {part.strip()}\n" for part in text.strip("{}").split(","))
    else:
        body = f"  {text}\n"
    assert told(HEAD + body) == [(6, field, message)]


WHOLE_FILES = [
    (
        "",
        [(None, "the file", "is empty; a manifest begins with apiVersion: penstock.dev/v1alpha1")],
    ),
    (
        "# only a comment\n",
        [(None, "the file", "is empty; a manifest begins with apiVersion: penstock.dev/v1alpha1")],
    ),
    ("- a\n", [(1, "the file", "must be a block of fields, not a list")]),
    ("wordcount:job\n", [(1, "the file", 'must be a block of fields, not "wordcount:job"')]),
    (
        HEAD + "---\n" + HEAD,
        [(7, "---", "a second document begins; a manifest has one, this file 2")],
    ),
    (
        "kind: Deployment\napiVersion: apps/v1\nspec: {replicas: 3}\n",
        [
            (2, "apiVersion", 'is "apps/v1"; write penstock.dev/v1alpha1'),
            (1, "kind", 'is "Deployment"; write StreamJob'),
        ],
    ),
    (
        "kind: StreamJob\nspec: {}\n",
        [
            (1, "apiVersion", "is missing"),
            (1, "metadata", "is missing"),
            (
                2,
                "spec.entrypoint",
                "is missing; write module:function, or the code itself in script",
            ),
        ],
    ),
    (
        HEAD.replace("entrypoint", "entrypont"),
        [(5, "spec.entrypont", "no such field; did you mean entrypoint?")],
    ),
    (
        HEAD.replace("wordcount:job", "wordcount.job"),
        [(5, "spec.entrypoint", '"wordcount.job" is not module:function, as in wordcount:job')],
    ),
    (HEAD.replace("{name: wordcount}", "{}"), [(3, "metadata.name", "is missing")]),
    (HEAD.replace("wordcount}", "3}"), [(3, "metadata.name", "3 is not text; put it in quotes")]),
    (HEAD + "  3: x\n", [(6, "spec.3", "the name is not text; put it in quotes")]),
    (HEAD + "  parameters:\n\tx: 1\n", [(7, "column 1", "a tab; YAML is indented with spaces")]),
    (HEAD + "  image: a: b\n", [(6, "column 11", SECOND_COLON)]),
    (HEAD + "    image: a\n", [(6, "column 10", SECOND_COLON)]),
    (HEAD + " image: a\n", [(6, "column 2", "indented unlike the lines above it")]),
    (HEAD + "  image\n  parallelism: 1\n", [(7, "column 3", "the line before has no colon")]),
    (HEAD + "  parameters: {a: 1\n", [(7, "column 1", "a bracket or a quote is not closed")]),
    (HEAD + '  image: "a\n', [(7, "column 1", "a bracket or a quote is not closed")]),
    (HEAD + "  image: @home\n", [(6, "column 10", "text that begins with @ needs quotes")]),
    (HEAD + "  image: *.log\n", [(6, "column 11", "text that begins with & or * needs quotes")]),
    (HEAD + '  image: "a" b\n', [(6, "column 14", "indented unlike the lines above it")]),
    (HEAD + "  image: *base\n", [(6, "column 10", "*base refers to no &base above")]),
    (HEAD + "  parameters: &p {a: *p}\n", [(6, "column 15", "an alias that contains itself")]),
    (HEAD + "  image: \0\n", [(6, "column 10", "a character that YAML does not allow: U+0000")]),
    (
        HEAD + "  image: !!python/name:os.system x\n",
        [(6, "column 10", "the tag !!python/name:os.system has no meaning here")],
    ),
]


@pytest.mark.parametrize(("text", "expected"), WHOLE_FILES, ids=range(len(WHOLE_FILES)))
def test_a_file_that_is_no_manifest_says_why(text, expected):
    assert told(text) == expected


def test_one_wrong_field_hides_no_other():
    text = HEAD + (
        "  parallelism: 9\n"
        "  maxParallelism: 8\n"
        "  image: 3\n"
        "  checkpoints: {interval: soon, maxConcurrent: 2, minPause: 1s}\n"
        "  restart: {strategy: Never}\n"
    )
    assert [(line, field) for line, field, _ in told(text)] == [
        (6, "spec.parallelism"),
        (8, "spec.image"),
        (9, "spec.checkpoints.interval"),
        (9, "spec.checkpoints.minPause"),
        (10, "spec.restart.strategy"),
    ]


def test_an_unknown_field_with_no_near_one_lists_those_that_exist():
    draft = validate(HEAD + "  restart: {zzz: 1}\n", source="s")
    assert draft.mistakes[0].hint == (
        "known here: strategy, initialDelay, maxDelay, delay, attempts, window"
    )


def test_a_colon_too_many_says_how_to_quote():
    draft = validate(HEAD + "  image: a: b\n", source="s")
    assert draft.mistakes[0].hint == IN_QUOTES


def test_a_script_may_have_64_kib_and_no_more():
    head = HEAD.replace("  entrypoint: wordcount:job\n", "")
    fits = validate(f"{head}  script: '{'#' * 65536}'\n", source="s")
    assert fits.mistakes == []
    assert told(f"{head}  script: '{'#' * 65537}'\n") == [
        (5, "spec.script", "has 65,537 bytes; at most 64 KiB fit, put more into an image")
    ]


def test_the_text_is_a_table_with_aligned_columns():
    error = InvalidManifest(
        "streamjob.yaml",
        [
            Mistake(9, "spec.paralellism", "no such field; did you mean parallelism?"),
            Mistake(13, "spec.checkpoints.interval", f'"10 seconds" {DURATION}'),
            Mistake(7, "spec.parameters.inptu", "job() takes no inptu", "it takes: input"),
        ],
    )
    assert (
        str(error)
        == """\
streamjob.yaml has 3 mistakes; nothing was started.

  line 9   spec.paralellism           no such field; did you mean parallelism?
  line 13  spec.checkpoints.interval  "10 seconds" is not a duration; write 10s, 500ms, 5m, 1h
  line 7   spec.parameters.inptu      job() takes no inptu
                                      it takes: input

penstock run --help · all fields: penstock graph --schema or kubectl explain streamjob.spec"""
    )
    assert error.exit_code == 2


def test_the_error_survives_the_way_to_another_process():
    error = InvalidManifest("s.yaml", [Mistake(1, "kind", "is wrong")])
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_missing_file_names_the_near_one(tmp_path):
    (tmp_path / "streamjob.yaml").write_text(HEAD)
    with pytest.raises(Rejected) as caught:
        load_manifest(tmp_path / "steamjob.yaml")
    assert caught.value.what == f"there is no file {tmp_path / 'steamjob.yaml'}"
    assert caught.value.fix == f"did you mean {tmp_path / 'streamjob.yaml'}?"


def test_a_folder_is_no_manifest_but_says_what_is_in_it(tmp_path):
    (tmp_path / "a.yaml").write_text(HEAD)
    with pytest.raises(Rejected, match="is a folder, not a manifest") as caught:
        read_manifest(tmp_path)
    assert caught.value.fix == "in that folder: a.yaml"


def test_a_file_that_is_far_too_long_is_none(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(HEAD + "#" * 1000)
    for endless in (path, Path("/dev/zero")):
        with pytest.raises(Rejected, match="longer than 1,000 bytes, more than a manifest can be"):
            read_manifest(endless, longest_bytes=1000)
    assert read_manifest(path, longest_bytes=2000).complete()


def test_a_few_lines_that_stand_for_a_billion_values_are_refused():
    lines = ["  parameters:", "    a: &a [x, x, x, x, x, x, x, x, x, x]"]
    for before, name in pairwise("abcdefghi"):
        lines.append(f"    {name}: &{name} [{', '.join([f'*{before}'] * 10)}]")
    ((line, _, message),) = told(HEAD + "\n".join(lines))
    assert message == "more than 100,000 values, aliases counted as what they stand for"
    assert line == 7


def test_a_file_of_other_bytes_is_not_text(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(InvalidManifest) as caught:
        read_manifest(path)
    assert caught.value.mistakes == (Mistake(2, "the file", "is not UTF-8 text"),)


def test_an_entrypoint_without_a_manifest_is_checked_like_one(tmp_path):
    assert draft_of("wordcount:job", folder=tmp_path).complete().metadata.name == "wordcount"
    wrong = draft_of("wordcount", folder=tmp_path)
    assert [m.field for m in wrong.mistakes] == ["spec.entrypoint"]
