"""The door: help, usage errors, exit codes, what goes to stdout and what to stderr."""

import contextlib
import http.server
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tests.unit.cli.conftest import Answer

from penstock.cli import errors, numbers, root
from penstock.core.errors import Corrupt, PenstockError, Rejected, Retryable

GOLDEN = Path(__file__).parents[2] / "golden" / "cli"


def test_help_is_the_page_in_the_golden_file(penstock):
    answer = penstock("--help")
    assert answer.out == (GOLDEN / "help.txt").read_text()
    assert (answer.err, answer.code) == ("", 0)
    assert penstock().out == answer.out
    assert penstock("-h").out == answer.out


def test_what_pods_run_is_hidden_until_asked_for(penstock):
    assert "coordinator  The coordinator" not in penstock("--help").out
    everything = penstock("--help", "--all").out
    assert "  worker      A worker: supervisor of one child per attempt\n" in everything
    assert "  coordinator The coordinator of one job\n" in everything


def test_run_help_is_the_page_in_the_golden_file(penstock):
    assert penstock("run", "--help").out == (GOLDEN / "run-help.txt").read_text()


@pytest.mark.parametrize("name", [n for s in root._SECTIONS.values() for n in s])
def test_every_listed_command_has_a_page_that_begins_with_its_usage(penstock, name):
    answer = penstock(name, "--help")
    assert answer.code == 0
    assert answer.out.startswith(f"Usage: penstock {name} ")
    assert "\nOptions\n" in answer.out or "COMMAND --help tells more" in answer.out
    assert max(map(len, answer.out.splitlines())) <= 100


@pytest.mark.parametrize("name", [n for s in root._SECTIONS.values() for n in s])
def test_every_command_that_prints_knows_json(penstock, name):
    pages = [penstock(name, "--help").out]
    if name == "state":
        pages = [penstock("state", sub, "--help").out for sub in ("ls", "get", "diff", "verify")]
    assert all("-o, --output json" in page for page in pages)


def test_what_state_can_do_is_what_help_says(penstock):
    page = penstock("state", "--help").out
    assert penstock("state") == Answer(page, "", 0)
    for sub in ("ls", "get", "export", "diff", "verify"):
        assert f"\n  {sub} " in page
        assert penstock("state", sub, "--help").code == 0


@pytest.mark.parametrize(
    ("arguments", "what", "where"),
    [
        (("snapshotz",), "there is no command snapshotz; did you mean snapshots?", "penstock"),
        (("xyz",), "there is no command xyz", "penstock"),
        (("graph", "--frobnicate"), "no such option '--frobnicate'", "penstock graph"),
        (("state", "get", "chk-1"), "missing argument 'OPERATOR'", "penstock state get"),
        (("snapshots", "-o", "yaml"), None, "penstock snapshots"),
        (("graph",), "no job is named", "penstock graph"),
        (("status", "a", "-m", "h:1"), "both JOB and -m are given", "JOB a, -m h:1"),
        (("status", "-m", "nonsense"), "'nonsense' is not HOST:PORT", "-m"),
        (("status", "-m", "h:x"), "'h:x' is not HOST:PORT", "-m"),
        (("graph", "m:job", "-p", "input"), "'input' is not a parameter", "-p"),
        (("run", "m:job", "--restore", ""), "nothing is named to restore from", "--restore"),
        (
            ("run", "m:job", "-n", "0"),
            "invalid value for '-n' / '--parallelism': 0 is too small; at least 1 is needed",
            "penstock run",
        ),
        (
            ("run", "m:job", "-n", "x"),
            "invalid value for '-n' / '--parallelism': 'x' is not a whole number",
            "penstock run",
        ),
        (
            ("run", "m:job", "--port", "70000"),
            "invalid value for '--port': 70000 is not within 0 to 65535",
            "penstock run",
        ),
        (
            ("state", "diff", "a", "b", "--limit", "-1"),
            "invalid value for '--limit': -1 is too small; at least 0 is needed",
            "penstock state diff",
        ),
        (("snapshots", "a", "b"), "there is an extra argument (b)", "penstock snapshots"),
    ],
)
def test_a_wrong_request_is_told_in_three_parts_with_exit_code_2(penstock, arguments, what, where):
    answer = penstock(*arguments)
    assert (answer.out, answer.code) == ("", 2)
    lines = answer.err.splitlines()
    if what is not None:
        assert lines[0] == f"error: {what}"
    assert lines[1] == f"  where  {where}"
    assert lines[2].startswith("  do     ")


@pytest.mark.parametrize("command", ["status", "savepoint", "checkpoint", "stop", "cancel"])
def test_without_a_running_job_commands_about_one_say_so(penstock, command):
    answer = penstock(command)
    assert (answer.out, answer.code) == ("", 2)
    assert answer.err.startswith("error: no job runs on this machine\n")


@pytest.mark.parametrize("command", ["status", "savepoint", "checkpoint", "stop", "cancel"])
def test_a_coordinator_that_does_not_answer_is_exit_code_3(penstock, command):
    answer = penstock(command, "-m", "127.0.0.1:1")
    assert (answer.out, answer.code) == ("", 3)
    assert "error: the coordinator does not answer" in answer.err
    assert "  where  http://127.0.0.1:1\n" in answer.err


@pytest.mark.parametrize(
    ("body", "status", "told", "code"),
    [
        (b"<html>", 200, "what answers there is no coordinator of Penstock", 2),
        (b"{}", 200, "what answers there is no coordinator of Penstock", 2),
        (b'{"error": {"what": "busy", "exitCode": 3}}', 503, "busy", 3),
        (b'{"error": {"what": "torn", "exitCode": 4}}', 422, "torn", 4),
        (b'{"error": {"what": "x", "exitCode": 2}}', 401, "the job's token is missing", 2),
    ],
)
def test_what_another_service_or_a_refusal_answers_is_told(penstock, body, status, told, code):
    with answering(body, status) as address:
        for command in ("status", "stop"):
            answer = penstock(command, "-m", address)
            assert (answer.out, answer.code) == ("", code)
            assert f"error: {told}\n" in answer.err


@contextlib.contextmanager
def answering(body: bytes, status: int):
    """A service of HTTP that gives every request the same answer; its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *_):
            """Silence."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_no_running_jobs_are_an_empty_list(penstock):
    answer = penstock("list")
    assert (answer.out, answer.err, answer.code) == ("", "no job runs on this machine\n", 0)
    assert json.loads(penstock("list", "-o", "json").out) == []


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PenstockError("x"), 1),
        (Rejected("x"), 2),
        (Retryable("x"), 3),
        (Corrupt("x"), 4),
        (KeyboardInterrupt(), 130),
        (ValueError("x"), 1),
    ],
)
def test_exit_codes_are_those_of_what_to_do_next(error, code):
    assert errors.exit_code(error) == code


def test_our_traceback_is_shown_only_on_request(penstock, monkeypatch):
    assert "Traceback" not in penstock("status").err
    monkeypatch.setenv("PENSTOCK_TRACEBACK", "1")
    answer = penstock("status")
    assert answer.err.startswith("Traceback")
    assert "error: no job runs on this machine" in answer.err


def test_an_error_of_ours_asks_to_be_reported(capsys):
    assert errors.report(ZeroDivisionError("division by zero")) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: unexpected ZeroDivisionError: division by zero\n")
    assert "PENSTOCK_TRACEBACK=1" in told


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from penstock.cli.main import run; run(['--help']);"
        "print(*sorted(set(sys.modules) & {'boto3', 'aiohttp', 'rocksdict', 'rich', 'pydantic'}),"
        " file=sys.stderr)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stderr.strip() == ""


@pytest.mark.parametrize(
    ("outputs", "code", "told"),
    [
        ("| true", 0, ""),
        (">&-", 0, ""),
        (">&- 2>&-", 0, ""),
        ("<&- >&- 2>&-", 0, ""),
        (">/dev/full", 1, "error: the results cannot be written: No space left on device\n"),
        (">/dev/full 2>&1", 1, ""),
    ],
)
def test_a_reader_that_has_had_enough_is_no_error_and_a_full_disk_is_one(outputs, code, told):
    run = "from penstock.cli.main import main; import sys; sys.argv[1:] = ['--help']; main()"
    command = f'{sys.executable} -c "{run}" {outputs}; echo ${{PIPESTATUS[0]}}'
    found = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert (found.stdout, found.stderr) == (f"{code}\n", told)


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (numbers.size(0), "0 B"),
        (numbers.size(96), "96 B"),
        (numbers.size(1023), "1023 B"),
        (numbers.size(1024), "1.0 KiB"),
        (numbers.size(2_202_009), "2.1 MiB"),
        (numbers.size(317_440), "310 KiB"),
        (numbers.size(1_048_575), "1.0 MiB"),
        (numbers.size(None), "—"),
        (numbers.count(0), "0"),
        (numbers.count(999), "999"),
        (numbers.count(11_402), "11.4 k"),
        (numbers.count(999_999), "1.0 M"),
        (numbers.count(101_300_000), "101.3 M"),
        (numbers.rate(0), "0/s"),
        (numbers.rate(412_345), "412 k/s"),
        (numbers.rate(2_430_000), "2.4 M/s"),
        (numbers.rate(999.9), "1.0 k/s"),
        (numbers.duration(201), "0.2 s"),
        (numbers.duration(9_960), "10 s"),
        (numbers.duration(112_000), "1 min 52 s"),
        (numbers.duration(120_000), "2 min"),
        (numbers.duration(11_100_000), "3 h 5 min"),
        (numbers.age(125_000), "2m"),
        (numbers.age(-5), "0s"),
        (numbers.clock(42_000), "00:00:42"),
        (numbers.percent(0.014), "1.4 %"),
        (numbers.percent(0.31), "31 %"),
        (numbers.utc(1_795_229_950_000), "2026-11-21T02:59:10Z"),
    ],
)
def test_numbers_for_people_have_units(made, text):
    assert made == text
