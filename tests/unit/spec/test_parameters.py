"""A job's parameters are the keyword-only arguments of its function."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Literal

import pytest
from pydantic import BaseModel

from penstock.core.errors import Rejected
from penstock.spec.parameters import check_parameters, describe_parameters

if TYPE_CHECKING:
    from nowhere import Environment


class Mode(Enum):
    FAST = "fast"
    SLOW = "slow"


@dataclass(frozen=True)
class Window:
    size: timedelta
    count: int = 3


class Point(BaseModel):
    x: int
    at: datetime


def job(env: "Environment", *, input: str, output: str) -> None: ...


def every(
    env: "Environment",
    *,
    text: Annotated[str, "the words to count"],
    n: int = 3,
    f: float = 0.5,
    b: bool = False,
    d: timedelta = timedelta(days=1),
    at: datetime | None = None,
    day: date = date(2026, 1, 1),
    lit: Literal["a", "b"] = "a",
    mode: Mode = Mode.FAST,
    xs: tuple[int, ...] = (),
    ds: list[timedelta] | None = None,
    u: int | timedelta = 3,
    w: Window | None = None,
    p: Point | None = None,
    money: Decimal = Decimal(0),
    table: dict[str, timedelta] | None = None,
    anything=None,
) -> None: ...


def told(fn, written, overrides=None):
    return [
        (".".join(map(str, m.path)), m.message)
        for m in check_parameters(fn, written, overrides).mistakes
    ]


VALUES = [
    ("text", "x", "x", "x"),
    ("n", 4, "4", 4),
    ("f", 2, "2", 2.0),
    ("f", 1e6, "1e6", 1e6),
    ("b", True, "yes", True),
    ("d", "10s", "10s", timedelta(seconds=10)),
    ("at", "2026-11-21T02:58:04Z", "2026-11-21T02:58:04Z", datetime(2026, 11, 21, 2, 58, 4, tzinfo=UTC)),
    ("at", None, "null", None),
    ("day", "2026-11-21", "2026-11-21", date(2026, 11, 21)),
    ("lit", "b", "b", "b"),
    ("mode", "slow", "slow", Mode.SLOW),
    ("mode", "SLOW", "SLOW", Mode.SLOW),
    ("xs", [1, 2], "1,2", (1, 2)),
    ("xs", [1, 2], "[1, 2]", (1, 2)),
    ("xs", [1], "1", (1,)),
    ("ds", ["1s", "2m"], "1s, 2m", [timedelta(seconds=1), timedelta(minutes=2)]),
    ("u", 5, "5", 5),
    ("u", "5m", "5m", timedelta(minutes=5)),
    ("w", {"size": "3s"}, "{size: 3s}", Window(timedelta(seconds=3))),
    ("p", {"x": 1, "at": "2026-11-21T00:00:00Z"}, "{x: 1, at: 2026-11-21T00:00:00Z}",
     Point(x=1, at=datetime(2026, 11, 21, tzinfo=UTC))),
    ("money", "1.10", "'1.10'", Decimal("1.10")),
    ("table", {"a": "1s"}, "{a: 1s}", {"a": timedelta(seconds=1)}),
    ("anything", [1, {"a": 2}], "[1, {a: 2}]", [1, {"a": 2}]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "written", "typed", "value"), VALUES)
def test_values_come_from_yaml_and_from_the_command_line(name, written, typed, value):
    given = {"text": "t"}
    from_yaml = check_parameters(every, given | {name: written})
    assert from_yaml.mistakes == ()
    assert from_yaml.values[name] == value
    assert type(from_yaml.values[name]) is type(value)
    from_command_line = check_parameters(every, given, {name: typed})
    assert from_command_line.mistakes == ()
    assert from_command_line.values[name] == value


def test_text_on_the_command_line_stays_text():
    assert check_parameters(job, {}, {"input": "007", "output": "yes"}).values == {
        "input": "007",
        "output": "yes",
    }


def test_the_command_line_wins_over_the_manifest():
    found = check_parameters(job, {"input": "a", "output": "b"}, {"input": "c"})
    assert found.values == {"input": "c", "output": "b"}


def test_what_was_given_is_kept_as_plain_values_for_another_process():
    found = check_parameters(every, {"text": "t", "d": "1m"}, {"n": "4", "xs": "1,2"})
    assert found.written == {"text": "t", "d": "1m", "n": 4, "xs": [1, 2]}
    assert check_parameters(every, found.written).values == found.values


def test_defaults_are_left_to_the_function():
    assert check_parameters(every, {"text": "t"}).values == {"text": "t"}


WRONG = [
    ("n", "x", "n", '"x" is not a whole number'),
    ("n", 1.5, "n", "1.5 is not a whole number"),
    ("n", None, "n", "is empty; int is needed"),
    ("f", "e", "f", '"e" is not a number'),
    ("b", "maybe", "b", '"maybe" is not true or false'),
    ("text", 3, "text", "3 is not text; put it in quotes"),
    ("d", "10 s", "d", '"10 s" is not a duration; write 10s, 500ms, 5m, 1h'),
    ("d", 10, "d", "10 is not a duration; write 10s, 500ms, 5m, 1h"),
    ("at", "noon", "at", '"noon" is not a time; write 2026-11-21T02:58:04Z'),
    ("at", "2026-11-21T00:00:00", "at",
     '"2026-11-21T00:00:00" has no time zone; write 2026-11-21T02:58:04Z'),
    ("day", 2026, "day", "2026 is not a date; write 2026-11-21"),
    ("lit", "c", "lit", '"c" is none of a, b'),
    ("mode", "fsat", "mode", '"fsat" is none of fast, slow; did you mean fast?'),
    ("xs", [1, "b"], "xs.1", '"b" is not a whole number'),
    ("xs", 3, "xs", "must be a list, not 3"),
    ("ds", ["1s", 2], "ds.1", "2 is not a duration; write 10s, 500ms, 5m, 1h"),
    ("u", "z", "u", '"z" is not int | timedelta'),
    ("w", {"size": 3}, "w.size", "3 is not a duration; write 10s, 500ms, 5m, 1h"),
    ("w", {"count": 3}, "w.size", "is missing"),
    ("w", {"size": "1s", "count": "x"}, "w.count", '"x" is not a whole number'),
    ("p", {"x": 1, "at": "2026-11-21"}, "p.at",
     '"2026-11-21" has no time zone; write 2026-11-21T02:58:04Z'),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "path", "message"), WRONG)
def test_a_wrong_value_is_told_where_it_is(name, value, path, message):
    found = told(every, {"text": "t"} | {name: value})
    assert found == [(path, message)]


def test_unknown_wrong_and_missing_are_found_together():
    assert told(every, {"nn": 1, "n": "x", "frobnicate": 2}) == [
        ("nn", "every() in test_parameters.py takes no parameter nn"),
        ("n", '"x" is not a whole number'),
        ("frobnicate", "every() in test_parameters.py takes no parameter frobnicate"),
        ("text", "is missing; every() in test_parameters.py needs it (str)"),
    ]


def test_an_unknown_parameter_says_what_there_is():
    found = check_parameters(job, {"inptu": "x", "output": "y"}).mistakes
    assert [(m.path, m.message, m.hint) for m in found] == [
        (
            ("inptu",),
            "job() in test_parameters.py takes no parameter inptu",
            "it takes: input (str, required), output (str, required)",
        )
    ]


def test_a_missing_one_is_told_when_no_near_miss_explains_it():
    assert [p for p, _ in told(job, {"zzz": 1})] == ["zzz", "input", "output"]


def test_the_help_of_an_annotation_is_told_with_a_mistake():
    assert check_parameters(every, {}).mistakes[0].hint == "the words to count"


def test_parameters_are_described_for_people():
    assert [str(p) for p in describe_parameters(every)] == [
        "text (str, required)",
        "n (int, default 3)",
        "f (float, default 0.5)",
        "b (bool, default False)",
        "d (timedelta, default 24h)",
        "at (datetime | null, default None)",
        "day (date, default datetime.date(2026, 1, 1))",
        "lit (a | b, default a)",
        "mode (fast | slow, default fast)",
        "xs (tuple[int, …], default ())",
        "ds (list[timedelta] | null, default None)",
        "u (int | timedelta, default 3)",
        "w (Window | null, default None)",
        "p (Point | null, default None)",
        "money (Decimal, default Decimal('0'))",
        "table (dict[str, timedelta] | null, default None)",
        "anything (?, default None)",
    ]


def _by_position(env, input): ...
def _stars(env, *inputs): ...
def _double_stars(env, **inputs): ...
def _nothing(): ...
def _only_keywords(*, env): ...
async def _async(env): ...
def _generator(env):
    yield


def _unreadable(env, *, x: "Nowhere"): ...  # noqa: F821
def _socket(env, *, x: "Sock"): ...


class Sock:
    pass


@pytest.mark.parametrize(
    ("fn", "what"),
    [
        (_by_position, "takes input by position; parameters are keyword-only"),
        (_stars, r"takes \*inputs; parameters are named one by one"),
        (_double_stars, r"takes \*\*inputs; parameters are named one by one"),
        (_nothing, "does not take the environment first"),
        (_only_keywords, "does not take the environment first"),
        (_async, "is async; a job only builds the graph"),
        (_generator, "is a generator; a job only builds the graph"),
        (_unreadable, "the annotation of x cannot be read: name 'Nowhere' is not defined"),
        (_socket, "x has type Sock, which no manifest can give"),
    ],
)
def test_other_signatures_are_refused_in_a_sentence(fn, what):
    with pytest.raises(Rejected, match=what) as caught:
        describe_parameters(fn)
    assert caught.value.fix


def test_a_callable_object_may_be_a_job():
    class Job:
        def __call__(self, env, *, n: int) -> None: ...

    assert check_parameters(Job(), {"n": 3}).values == {"n": 3}
