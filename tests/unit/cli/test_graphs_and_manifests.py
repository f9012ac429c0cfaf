"""`penstock graph`, `penstock check`, and the manifest that `penstock run` really takes."""

import json
import re
from pathlib import Path

import pytest

from penstock.cli.effective import effective
from penstock.cli.job import load, overrides
from penstock.core.errors import Rejected

GOLDEN = Path(__file__).parents[2] / "golden" / "cli"

JOB = '''
import re
from collections.abc import Iterator
from typing import Annotated

import penstock
from penstock import formats, sinks, sources


def words(line: str) -> list[str]:
    return re.findall(r"[a-z']+", line.lower())


class Rare(penstock.KeyedFunction):
    """Words that were seen once."""

    seen = penstock.ValueState(int, default=0)
    places = penstock.MapState(str, int)
    often = penstock.SideOutput(str)

    def process(self, word: str, ctx: penstock.Context[str]) -> Iterator[str]:
        yield word


def job(
    env: penstock.Environment,
    *,
    input: Annotated[str, "a file, a folder or a pattern"],
    output: str,
    least: int = 2,
) -> None:
    lines = env.source(sources.Files(input), uid="lines")
    each = lines.flat_map(words)
    counts = each.key_by(lambda word: word).count(uid="counts", emit="end")
    counts.sink(sinks.Files(output, formats.Json()), uid="out")
    rare = each.key_by(words, key_type=str).process(Rare(), uid="rare")
    rare.union(rare.side(Rare.often)).rebalance().sink(sinks.Print(), uid="shown", parallelism=1)


def broken(env: penstock.Environment) -> None:
    raise RuntimeError("no such luck")
'''

MANIFEST = """\
apiVersion: penstock.dev/v1alpha1
kind: StreamJob
metadata: {name: wordcount}
spec:
  entrypoint: counting:job
  parameters: {input: in.txt, output: out}
  parallelism: 2
"""


@pytest.fixture
def manifest(penstock, tmp_path):
    (tmp_path / "counting.py").write_text(JOB)
    path = tmp_path / "streamjob.yaml"
    path.write_text(MANIFEST)
    return path


@pytest.mark.parametrize("form", ["text", "mermaid", "dot", "json"])
def test_the_graph_is_the_page_in_the_golden_file(penstock, manifest, form):
    answer = penstock("graph", "streamjob.yaml", *([] if form == "text" else ["-o", form]))
    assert (answer.err, answer.code) == ("", 0)
    assert answer.out == (GOLDEN / f"graph.{form}").read_text()


def test_a_graph_without_a_manifest_has_all_defaults(penstock, manifest):
    answer = penstock("graph", "counting:job", "-p", "input=a", "-p", "output=b")
    assert answer.out.startswith("counting · counting:job · parallelism 1, at most 128\n")


def test_the_schema_is_json_with_every_field(penstock):
    schema = json.loads(penstock("graph", "--schema").out)
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert "parallelism" in json.dumps(schema)


def test_what_the_authors_function_raises_is_told_with_his_line(penstock, manifest):
    answer = penstock("graph", "counting:broken")
    assert answer.code == 2
    assert answer.err.startswith("error: broken() raised RuntimeError: no such luck\n")
    assert 'File "counting.py", line' in answer.err
    assert "penstock/" not in answer.err


def test_mistakes_in_fields_and_in_parameters_are_told_together(penstock, manifest):
    manifest.write_text(
        MANIFEST.replace("parallelism", "paralellism").replace("input:", "inptu:")
        + "  checkpoints: {interval: 10 seconds}\n"
    )
    for command in (("run",), ("graph",), ("check",)):
        more = ("chk-1",) if command == ("check",) else ()
        answer = penstock(*command, "streamjob.yaml", *more)
        assert (answer.out, answer.code) == ("", 2)
        assert answer.err == (GOLDEN / "three-mistakes.txt").read_text()


def test_a_snapshot_of_the_same_job_fits(penstock, made, words, tmp_path):
    made.checkpoint(8, words)
    (tmp_path / "wc.py").write_text(
        "import penstock\n"
        "from penstock import sinks, sources\n"
        "class Counts(penstock.KeyedFunction):\n"
        "    count = penstock.ValueState({type}, default=0)\n"
        "    def process(self, word, ctx):\n"
        "        return None\n"
        "def job(env):\n"
        "    lines = env.source(sources.Files('x'), uid='lines')\n"
        "    lines.key_by(str).process(Counts(), uid='{uid}')\n"
    )
    text = (tmp_path / "wc.py").read_text()
    (tmp_path / "same.py").write_text(text.format(type="int", uid="counts"))
    (tmp_path / "renamed.py").write_text(text.format(type="int", uid="sums"))
    (tmp_path / "changed.py").write_text(text.format(type="float", uid="counts"))
    fits = penstock("check", "same:job", "chk-8")
    assert fits.out.startswith("yes: same restores from chk-8 (checkpoint of wordcount")
    assert fits.code == 0
    assert json.loads(penstock("check", "same:job", "chk-8", "-o", "json").out)["fits"]
    renamed = penstock("check", "renamed:job", "chk-8")
    assert renamed.code == 2
    assert "operator counts has state in the snapshot and is not in the job" in renamed.err
    next((tmp_path / "state/checkpoints/wordcount/shared").iterdir()).unlink()
    assert penstock("check", "same:job", "chk-8").code == 4


@pytest.mark.parametrize(
    ("text", "told"),
    [("input", "'input' is not a parameter"), ("=x", "'=x' is not a parameter")],
)
def test_a_parameter_has_a_name_and_a_value(text, told):
    with pytest.raises(Rejected, match=re.escape(told)):
        overrides([text])


@pytest.mark.parametrize(
    ("target", "what", "fix"),
    [
        ("words.py", "words.py is Python, not a manifest", "words:job"),
        ("words.py:count", "words.py:count is Python, not a manifest", "words:count"),
        ("words", "words is a module, not a manifest", "words:job"),
    ],
)
def test_code_in_a_manifests_place_says_how_to_name_it(manifest, target, what, fix):
    (manifest.parent / "words.py").write_text("")
    with pytest.raises(Rejected) as caught:
        load(target)
    assert caught.value.what == what
    assert fix in caught.value.fix


def test_a_folder_that_is_gone_is_told(monkeypatch):
    def cwd():
        raise FileNotFoundError

    monkeypatch.setattr(Path, "cwd", cwd)
    with pytest.raises(Rejected, match="the current folder is gone"):
        load("words:job")


def test_what_a_job_prints_is_no_result_and_where_it_goes_nobody_follows(penstock, manifest):
    manifest.with_name("chatty.py").write_text(
        "import os\nfrom penstock import sinks, sources\nprint('imported')\nos.chdir('/')\n\n"
        "def job(env):\n    print('called')\n    os.chdir('/')\n"
        "    env.source(sources.Files('x'), uid='lines').sink(sinks.Print(), uid='out')\n"
    )
    before = Path.cwd()
    answer = penstock("graph", "chatty:job", "-o", "json")
    assert json.loads(answer.out)["name"] == "chatty"
    assert answer.err == "imported\ncalled\n"
    assert Path.cwd() == before


def test_of_two_values_the_later_wins_and_values_may_contain_the_sign():
    assert overrides(["a=1", "a=2", "b=x=y", "c="]) == {"a": "2", "b": "x=y", "c": ""}


def test_the_command_line_goes_over_the_manifest(manifest):
    parameters = ["output=elsewhere", "least=7"]
    job = load(str(manifest), parameters)
    made, said = effective(job, parameters=overrides(parameters), parallelism=4, storage=None)
    assert said is None
    assert made.spec.parallelism == 4
    assert made.spec.parameters == {"input": "in.txt", "output": "elsewhere", "least": 7}


def test_s3_storage_is_replaced_on_a_laptop_and_that_is_said(manifest, tmp_path):
    manifest.write_text(MANIFEST + "  checkpoints: {storage: 's3://b/c', interval: 1s}\n")
    job = load(str(manifest))
    made, said = effective(job, parameters={}, parallelism=None, storage=None)
    assert made.spec.checkpoints.storage is None
    assert made.spec.checkpoints.interval_ms == 1000
    assert said == (
        "Snapshots go to ./state instead of s3://b/c; "
        "--storage manifest takes what the manifest says."
    )
    kept, said = effective(job, parameters={}, parallelism=None, storage="manifest")
    assert (kept.spec.checkpoints.storage, said) == ("s3://b/c", None)
    other, said = effective(job, parameters={}, parallelism=None, storage="snap")
    assert other.spec.checkpoints.storage == f"{tmp_path}/snap/checkpoints"
    assert other.spec.savepoints.storage == f"{tmp_path}/snap/savepoints"


@pytest.mark.parametrize(
    ("storage", "root"),
    [
        ("s3://bucket/", "s3://bucket"),
        ("file:///", "file://"),
        ("/", ""),
        ("/mnt/x/", "/mnt/x"),
        ("", None),
        ("gs://bucket", None),
        ("http://host/x", None),
        ("s3://", None),
        ("s3:///folder", None),
        ("s3:bucket", None),
        ("a\0b", None),
    ],
)
def test_a_storage_on_the_command_line_is_checked_like_one_in_a_manifest(manifest, storage, root):
    job = load(str(manifest))
    if root is None:
        with pytest.raises(Rejected, match="is not a storage") as caught:
            effective(job, parameters={}, parallelism=None, storage=storage)
        assert caught.value.where == "--storage"
        return
    made, _ = effective(job, parameters={}, parallelism=None, storage=storage)
    assert made.spec.checkpoints.storage == f"{root}/checkpoints"


def test_more_workers_than_key_groups_are_refused(manifest):
    manifest.write_text(MANIFEST + "  maxParallelism: 8\n")
    with pytest.raises(Rejected, match="parallelism 9 is above maxParallelism, which is 8"):
        effective(load(str(manifest)), parameters={}, parallelism=9, storage=None)
