"""Whatever the text, the answer is a job or mistakes in words; never an exception, never pydantic's."""

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.spec.changes import revision_of
from penstock.spec.loading import validate
from penstock.spec.streamjob import StreamJob, json_schema

SCHEMA = json_schema()

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["10s", "1Gi", "Savepoint", "s3://b/x", "a:b", "0 3 * * *"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(min_size=1, max_size=8), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


def parts(name, wrong):
    """A part of the manifest with some of its fields: right ones, or perhaps wrong and unknown."""
    known = SCHEMA["$defs"][name]["properties"]
    fields = {field: right_values(schema, wrong) for field, schema in known.items()}
    if not wrong:
        return st.fixed_dictionaries({}, optional=fields)
    return st.builds(
        lambda right, unknown: unknown | right,
        st.fixed_dictionaries({}, optional={f: json_values | right for f, right in fields.items()}),
        st.dictionaries(st.text(min_size=1, max_size=8), json_values, max_size=1),
    )


def right_values(schema, wrong):
    for option in [schema, *schema.get("anyOf", [])]:
        target = option.get("$ref", "").rpartition("/")[2]
        if "properties" in SCHEMA["$defs"].get(target, {}):
            return parts(target, wrong)
        if "enum" in SCHEMA["$defs"].get(target, {}):
            return st.sampled_from(SCHEMA["$defs"][target]["enum"])
    pattern = schema.get("pattern", "")
    if "ms" in pattern:
        return st.integers(min_value=1, max_value=10**6).map("{}ms".format)
    if "Ti" in pattern:
        return st.integers(min_value=1, max_value=10**6).map("{}Ki".format)
    if schema.get("type") == "boolean":
        return st.booleans()
    if schema.get("type") == "integer":
        return st.integers(min_value=1, max_value=100)
    if schema.get("type") == "object":
        return st.dictionaries(st.text(min_size=1, max_size=3), st.text(max_size=3), max_size=2)
    if schema.get("type") == "array":
        return st.just([])
    return st.just(schema.get("default", "x"))


def manifests(spec):
    return st.fixed_dictionaries(
        {
            "apiVersion": st.just("penstock.dev/v1alpha1"),
            "kind": st.just("StreamJob"),
            "metadata": st.just({"name": "a"}),
            "spec": spec.map(lambda s: s | {"entrypoint": "a:b"} if isinstance(s, dict) else s),
        }
    )


def text_of(document):
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


def check(text):
    draft = validate(text, source="streamjob.yaml")
    assert (draft.job is not None) or draft.mistakes
    assert draft.job is None or isinstance(draft.job, StreamJob)
    lines = text.count("\n") + 2
    for mistake in draft.mistakes:
        assert mistake.message
        assert mistake.line is None or 1 <= mistake.line <= lines
        assert "nput should" not in mistake.message, mistake
    return draft


@settings(max_examples=100, deadline=None)
@given(manifests(parts("StreamJobSpec", wrong=True) | json_values))
def test_any_fields(document):
    check(text_of(document))


@settings(max_examples=100, deadline=None)
@given(manifests(parts("StreamJobSpec", wrong=False)))
def test_a_job_is_read_back_from_its_document(document):
    draft = check(text_of(document))
    if draft.job is not None:
        again = check(text_of(draft.job.document()))
        assert again.job == draft.job
        assert revision_of(again.job.spec) == revision_of(draft.job.spec)


@settings(max_examples=100, deadline=None)
@given(st.text() | st.text(alphabet=" \t\n:-[]{}&*!|>'\"#%@`ab1,?\\", max_size=40))
def test_any_text(text):
    check(text)
