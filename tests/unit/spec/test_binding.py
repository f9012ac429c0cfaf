"""Fields, entrypoint and parameters are checked in one pass."""

import sys
from datetime import timedelta

import pytest

from penstock.spec.binding import bind
from penstock.spec.loading import draft_of, read_manifest, validate
from penstock.spec.mistakes import InvalidManifest

JOB = """\
from datetime import timedelta


def job(env, *, input: str, output: str) -> None: ...


def timed(env, *, input: str, remember: timedelta = timedelta(days=1)) -> None: ...
"""

MANIFEST = """\
apiVersion: penstock.dev/v1alpha1
kind: StreamJob
metadata: {name: wordcount}
spec:
  entrypoint: wordcount:job
  parameters:
    inptu: shakespeare.txt
    output: out/
  paralellism: 2
  state:
    backend: RocksDB
  checkpoints:
    interval: 10 seconds
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "wordcount.py").write_text(JOB)
    (tmp_path / "streamjob.yaml").write_text(MANIFEST)
    monkeypatch.chdir(tmp_path)
    path, modules = list(sys.path), set(sys.modules)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def text_of(draft, overrides=None):
    with pytest.raises(InvalidManifest) as caught:
        bind(draft, overrides)
    return str(caught.value)


def test_a_wrong_manifest_with_three_mistakes(folder):
    """The text stands in the design of the command line."""
    from pathlib import Path

    assert (
        text_of(read_manifest(Path("streamjob.yaml")))
        == """\
streamjob.yaml has 3 mistakes; nothing was started.

  line 9   spec.paralellism           no such field; did you mean parallelism?
  line 13  spec.checkpoints.interval  "10 seconds" is not a duration; write 10s, 500ms, 5m, 1h
  line 7   spec.parameters.inptu      job() in wordcount.py takes no parameter inptu
                                      it takes: input (str, required), output (str, required)

penstock run --help · all fields: penstock graph --schema or kubectl explain streamjob.spec"""
    )


def test_a_job_without_mistakes_is_ready_to_be_called(folder):
    good = MANIFEST.replace("inptu", "input").replace("paralellism", "parallelism")
    good = good.replace("10 seconds", "10s")
    bound = bind(validate(good, source="s", folder=folder))
    assert bound.arguments == {"input": "shakespeare.txt", "output": "out/"}
    assert bound.function.__name__ == "job"
    assert bound.manifest.spec.parallelism == 2


def test_parameters_of_the_command_line_are_in_the_manifest_for_other_processes(folder):
    bound = bind(draft_of("wordcount:timed", folder=folder), {"input": "007", "remember": "90s"})
    assert bound.arguments == {"input": "007", "remember": timedelta(seconds=90)}
    document = bound.manifest.document()
    assert document["spec"]["parameters"] == {"input": "007", "remember": "90s"}
    import yaml

    again = bind(validate(yaml.safe_dump(document), source="s", folder=folder))
    assert again.arguments == bound.arguments


def test_a_mistake_of_the_command_line_is_told_as_one(folder):
    told = text_of(draft_of("wordcount:timed", folder=folder), {"input": "x", "remember": "soon"})
    assert '  -p remember  "soon" is not a duration; write 10s, 500ms, 5m, 1h' in told


def test_a_missing_parameter_stands_at_the_line_of_the_parameters(folder):
    text = MANIFEST.replace("    inptu: shakespeare.txt\n", "").replace(
        "paralellism", "parallelism"
    )
    told = text_of(validate(text.replace("10 seconds", "1s"), source="s", folder=folder))
    assert (
        "  line 6  spec.parameters.input  is missing; job() in wordcount.py needs it (str)" in told
    )


def test_a_parameter_missing_in_the_file_may_come_from_the_command_line(folder):
    text = MANIFEST.replace("    inptu: shakespeare.txt\n", "").replace(
        "paralellism", "parallelism"
    )
    draft = validate(text.replace("10 seconds", "1s"), source="s", folder=folder)
    assert bind(draft, {"input": "x"}).arguments == {"input": "x", "output": "out/"}


def test_an_entrypoint_that_is_not_there_is_one_mistake_among_the_others(folder):
    told = text_of(validate(MANIFEST.replace("count:job", "count:jbo"), source="s", folder=folder))
    assert "s has 3 mistakes" in told
    assert "  line 5   spec.entrypoint            there is no function jbo in wordcount.py" in told
    assert "did you mean job?" in told


def test_a_wrong_signature_is_a_mistake_of_the_entrypoint(folder):
    (folder / "wordcount.py").write_text("def job(env, input): ...\n")
    told = text_of(draft_of("wordcount:job", folder=folder))
    assert (
        "  spec.entrypoint  job() in wordcount.py takes input by position; parameters are keyword-only"
        in told
    )


def test_a_script_is_bound_like_a_module(folder):
    text = (
        "apiVersion: penstock.dev/v1alpha1\nkind: StreamJob\nmetadata: {name: first-try}\n"
        "spec:\n  script: |\n    def job(env, *, n: int = 1): ...\n  parameters: {m: 1}\n"
    )
    told = text_of(validate(text, source="s", folder=folder))
    assert "  line 7  spec.parameters.m  job() in job.py takes no parameter m" in told
    assert bind(validate(text.replace("{m:", "{n:"), source="s", folder=folder)).arguments == {
        "n": 1
    }
