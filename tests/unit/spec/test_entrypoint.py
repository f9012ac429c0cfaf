"""The author's function is found, or a sentence says what was looked for and where."""

import re
import sys

import pytest

from penstock.core.errors import Rejected
from penstock.spec.entrypoint import file_name, load_job, load_script
from penstock.spec.tracebacks import author_lines, raised


@pytest.fixture(autouse=True)
def _imports_are_undone():
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def rejected(entrypoint, folder):
    with pytest.raises(Rejected) as caught:
        load_job(entrypoint, folder)
    return caught.value


def test_a_function_is_loaded_with_the_modules_beside_it(tmp_path):
    (tmp_path / "helper_of_mine.py").write_text("def f():\n    return 41\n")
    (tmp_path / "my_job.py").write_text(
        "import helper_of_mine\ndef job(env):\n    return helper_of_mine.f() + 1\n"
    )
    job = load_job("my_job:job", tmp_path)
    assert job(None) == 42
    assert file_name(job) == "my_job.py"


def test_two_folders_may_each_have_a_module_of_one_name(tmp_path):
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "twin_job.py").write_text(f"def job(env):\n    return {number}\n")
    assert load_job("twin_job:job", tmp_path / "1")(None) == 1
    assert load_job("twin_job:job", tmp_path / "2")(None) == 2


def test_a_module_of_a_package_is_loaded(tmp_path):
    (tmp_path / "jobs_of_mine").mkdir()
    (tmp_path / "jobs_of_mine" / "__init__.py").write_text("")
    (tmp_path / "jobs_of_mine" / "a.py").write_text("def job(env): return 7\n")
    assert load_job("jobs_of_mine.a:job", tmp_path)(None) == 7


def test_a_module_that_is_not_there_names_the_near_one(tmp_path):
    (tmp_path / "wordcounting.py").write_text("")
    error = rejected("wordcuonting:job", tmp_path)
    assert error.what == f"there is no module wordcuonting in {tmp_path}"
    assert error.fix == "did you mean wordcounting?"


def test_a_module_that_is_not_there_lists_what_is(tmp_path):
    (tmp_path / "alpha.py").write_text("")
    assert rejected("zzz9:job", tmp_path).fix == "modules there: alpha"


def test_a_file_may_not_have_the_name_of_a_module_of_python(tmp_path):
    (tmp_path / "json.py").write_text("def job(env): ...\n")
    error = rejected("json:job", tmp_path)
    assert error.what == "json.py cannot be imported: Python itself has a module json"
    assert "json" in sys.modules


def test_an_import_that_raises_shows_only_the_authors_lines(tmp_path):
    (tmp_path / "raising_job.py").write_text("def f():\n    return [][1]\n\n\nx = f()\n")
    error = rejected("raising_job:job", tmp_path)
    assert error.what == "importing raising_job raised IndexError: list index out of range"
    assert error.where == (
        'File "raising_job.py", line 5, in <module>\n'
        "  x = f()\n"
        'File "raising_job.py", line 2, in f\n'
        "  return [][1]"
    )


def test_a_syntax_error_shows_the_place(tmp_path):
    (tmp_path / "unfinished_job.py").write_text("def job(env:\n    pass\n")
    error = rejected("unfinished_job:job", tmp_path)
    assert error.what == "importing unfinished_job raised SyntaxError: '(' was never closed"
    assert error.where == 'File "unfinished_job.py", line 1\n  def job(env:\n         ^'


def test_a_package_that_is_not_installed_is_not_called_a_missing_module_of_the_job(tmp_path):
    (tmp_path / "needy_job.py").write_text("import pandsa_9\n")
    error = rejected("needy_job:job", tmp_path)
    assert error.what == (
        "importing needy_job raised ModuleNotFoundError: No module named 'pandsa_9'"
    )
    assert error.fix == f"install it, or put pandsa_9.py into {tmp_path}"


def test_a_function_that_is_not_there_names_the_near_one(tmp_path):
    (tmp_path / "some_job.py").write_text(
        "from os import getcwd\ndef job(env): ...\nn = 3\nclass K: ...\n"
    )
    assert rejected("some_job:jbo", tmp_path).fix == "did you mean job?"
    assert rejected("some_job:zzz", tmp_path).fix == "functions there: job"
    assert (
        rejected("some_job:n", tmp_path).what
        == "n in some_job.py is not a function but of type int"
    )
    assert rejected("some_job:K", tmp_path).what == "K in some_job.py is a class, not a function"


def test_a_script_is_the_module_job(tmp_path):
    script = (
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "@dataclass\nclass A:\n    x: int\n"
        "def job(env, *, n: int):\n    return A(n)\n"
    )
    made = load_script(script, tmp_path)(None, n=1)
    assert made.x == 1
    assert type(made).__module__ == "job"


def test_a_script_that_raises_shows_its_lines(tmp_path):
    with pytest.raises(Rejected, match="importing the script raised ZeroDivisionError") as caught:
        load_script("x = 1\n1 / 0\n", tmp_path)
    assert caught.value.where == 'File "job.py", line 2, in <module>\n  1 / 0'


def test_a_script_without_a_function_job_says_so(tmp_path):
    with pytest.raises(Rejected, match="there is no function job in the script") as caught:
        load_script("def jop(env): ...\n", tmp_path)
    assert caught.value.fix == "name the function job"


def test_an_exception_is_told_in_the_authors_frames_and_the_innermost(tmp_path):
    (tmp_path / "parsing_job.py").write_text("import json\ndef job(env):\n    json.loads('{')\n")
    job = load_job("parsing_job:job", tmp_path)
    with pytest.raises(ValueError) as caught:
        job(None)
    lines = [
        line
        for line in author_lines(caught.value, tmp_path)
        if "parsing_job" in line or "json" in line
    ]
    assert lines[0] == 'File "parsing_job.py", line 3, in job'
    assert lines[1] == "  json.loads('{')"
    assert "decoder.py" in lines[-1]
    assert raised(caught.value).startswith("json.decoder.JSONDecodeError: Expecting property name")


def test_of_an_endless_recursion_both_ends_are_told(tmp_path):
    (tmp_path / "endless_job.py").write_text("def job(env):\n    job(env)\n")
    with pytest.raises(RecursionError) as caught:
        load_job("endless_job:job", tmp_path)(None)
    lines = author_lines(caught.value, tmp_path)
    assert len(lines) == 21
    assert re.fullmatch(r"… \d{3,} more …", lines[10])
    assert lines[-2:] == ('File "endless_job.py", line 2, in job', "  job(env)")


def test_code_that_python_cannot_even_read_is_told_without_pythons_own_lines(tmp_path):
    (tmp_path / "binary_job.py").write_bytes(b"x = '\0'\n")
    with pytest.raises(
        Rejected, match=r"importing binary_job raised SyntaxError: .*null"
    ) as caught:
        load_job("binary_job:job", tmp_path)
    assert caught.value.where is None


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("no"), "ValueError: no"),
        (ValueError("first\n  second"), "ValueError: first second"),
        (ValueError("\x1b[31mred\x1b[0m\0"), r"ValueError: \x1b[31mred\x1b[0m\x00"),
        (ValueError("Größe"), "ValueError: Größe"),
        (KeyError(), "KeyError"),
    ],
)
def test_whatever_was_raised_is_told_in_one_line_that_a_terminal_can_show(error, told):
    error.add_note("of somebody else")
    assert raised(error) == told


def test_of_a_long_message_the_beginning_is_told():
    told = raised(ValueError("x" * 10_000_000))
    assert len(told) < 700
    assert told.endswith("x… (of 10,000,013 characters)")


def test_frames_of_penstock_are_left_out(tmp_path):
    from penstock.spec.parts.quantities import parse_duration_ms

    with pytest.raises(ValueError) as caught:
        parse_duration_ms("x")
    lines = author_lines(caught.value, tmp_path)
    assert len(lines) == 2
    assert "test_entrypoint.py" in lines[0]
