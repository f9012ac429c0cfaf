"""What people read about a job: the live block, and the last words. All of it is text from values."""

from pathlib import Path

import pytest

from penstock.cli import endings, numbers, view
from penstock.cli.live import rates
from penstock.cli.tables import table
from penstock.spec.orders import (
    ErrorStatus,
    JobPhase,
    JobStatus,
    OperatorStatus,
    SnapshotStatus,
    WorkerStatus,
)

NOW_MS = 1_795_229_992_000
OPERATORS = (
    OperatorStatus(
        id="lines", label="Files", kind="source", parallelism=2,
        records_out=16_900_000, records_per_second=412_000, busy=0.31, state_bytes=96,
        unread_files=3, unread_bytes=1_181_116_006, unread_ms=118_000,
    ),
    OperatorStatus(
        id="flat-map-1", label="words", kind="flat_map", parallelism=2,
        records_in=16_900_000, records_out=101_300_000, records_per_second=412_000,
    ),
    OperatorStatus(
        id="counts", label="count", kind="count", parallelism=2, records_in=101_300_000,
        records_per_second=2_400_000, keys=11_402, state_bytes=2_202_009, busy=0.88,
    ),
    OperatorStatus(id="out", label="Files", kind="sink", parallelism=2, busy=0.0),
)  # fmt: skip
CHECKPOINT = SnapshotStatus(
    id=8,
    path="file:///elsewhere/state/checkpoints/wordcount/chk-8",
    completed_at_ms=NOW_MS - 4_000,
    duration_ms=201,
    size_bytes=2_202_009,
    bytes_new=317_440,
)
STATUS = JobStatus(
    job_id="wordcount",
    name="wordcount",
    phase=JobPhase.RUNNING,
    revision="r1",
    attempt=1,
    parallelism=2,
    max_parallelism=128,
    started_at_ms=NOW_MS - 42_000,
    last_checkpoint=CHECKPOINT,
    checkpoints_kept=3,
    next_checkpoint_in_ms=6_000,
    operators=OPERATORS,
)
ERROR = ErrorStatus(
    what="operator parse raised ValueError: not in combined log format",
    at_ms=NOW_MS - 3_000,
    attempt=3,
    operator="parse (map, weblog.py:22)",
    subtask=1,
    record="'46.118.127.106 - - [20/May/2015' … (182 characters)",
    position="lines: access.log, line 8,899",
    lines=(
        'File "weblog.py", line 25, in parse',
        '  raise ValueError("not in combined log format")',
    ),
)


def but(**changes) -> JobStatus:
    return STATUS.model_copy(update=changes)


def ran(status: JobStatus = STATUS, **more) -> endings.Ran:
    return endings.Ran(status, "penstock run streamjob.yaml", 112_000, **more)


def test_the_block_shows_every_operator_and_who_holds_the_others_back():
    text = view.block(STATUS, url="http://localhost:8081", now_ms=NOW_MS, backend="RocksDB")
    assert text == (
        "wordcount · running 00:00:42 · attempt 1 · 2 workers · RocksDB"
        "          http://localhost:8081\n"
        "\n"
        "  operator          records/s       in      out    keys    state   busy\n"
        "  lines               412 k/s        —   16.9 M       —     96 B   31 %\n"
        "  └ flat_map words    412 k/s   16.9 M  101.3 M       —        —      ″\n"
        "  counts              2.4 M/s  101.3 M        0  11.4 k  2.1 MiB   88 %"
        "  ← holds the others back\n"
        "  out                     0/s        0        —       —        —    0 %\n"
        "\n"
        "  lag         3 files, 1.1 GiB to read, about 2 min\n"
        "  checkpoint  chk-8  4.0 s ago · 0.2 s · 310 KiB new of 2.1 MiB · 3 kept · next in 6 s\n"
        "  restarts    0\n"
    )


def test_nobody_holds_the_others_back_while_all_have_time():
    idle = tuple(o.model_copy(update={"busy": 0.3}) for o in OPERATORS)
    assert "holds" not in view.operators(idle)


def test_failed_records_are_counted_where_they_failed():
    one = OPERATORS[1].model_copy(update={"records_failed": 1})
    assert "1 record failed" in view.operators((OPERATORS[0], one))


def test_before_the_first_checkpoint_the_block_says_so():
    none = but(last_checkpoint=None, operators=())
    assert "  checkpoint  none yet · next in 6 s\n" in view.block(none, url="", now_ms=NOW_MS)
    off = but(last_checkpoint=None, operators=(), next_checkpoint_in_ms=None)
    assert "  checkpoint  none yet\n" in view.block(off, url="", now_ms=NOW_MS)


def lag(*sources: OperatorStatus) -> list[str]:
    text = view.block(but(operators=sources), url="", now_ms=NOW_MS)
    return [line.removeprefix("  lag").strip() for line in text.splitlines() if "  lag" in line]


def test_sources_that_read_side_by_side_have_one_lag_and_the_slowest_ones_time():
    small = OPERATORS[0].model_copy(
        update={"unread_files": 1, "unread_bytes": 1024, "unread_ms": 400_000}
    )
    assert lag(OPERATORS[0], small) == ["4 files, 1.1 GiB to read, about 7 min"]


def test_the_time_to_read_is_left_out_when_one_source_cannot_tell_it():
    stuck = OPERATORS[0].model_copy(
        update={"unread_files": 1, "unread_bytes": 1024, "unread_ms": None}
    )
    assert lag(OPERATORS[0], stuck) == ["4 files, 1.1 GiB to read"]
    assert lag(stuck) == ["1 file, 1.0 KiB to read"]


def test_no_lag_is_shown_of_what_cannot_be_told_and_none_when_all_is_read():
    assert lag(OPERATORS[1]) == []
    read = OPERATORS[0].model_copy(update={"unread_files": 0, "unread_bytes": 0, "unread_ms": None})
    assert lag(read) == ["nothing to read"]


@pytest.mark.parametrize(
    ("ms", "text"),
    [(400, "0 s"), (6_000, "6 s"), (89_000, "89 s"), (118_000, "2 min"), (5_400_000, "2 h"),
     (200_000_000, "2 d")],
)  # fmt: skip
def test_times_that_are_not_known_better_have_one_unit(ms, text):
    assert numbers.about(ms) == text


def test_a_job_that_is_over_has_no_running_time():
    title = view.block(but(phase=JobPhase.FINISHED), url="", now_ms=NOW_MS).splitlines()[0]
    assert title == "wordcount · finished · attempt 1 · 2 workers"


def test_status_names_missing_workers_and_the_last_error():
    workers = (WorkerStatus(id=0), WorkerStatus(id=1, connected=False))
    text = view.status_page(but(workers=workers, last_error=ERROR), url="", now_ms=NOW_MS)
    assert "  workers not connected: 1\n" in text
    assert "last error, 3.0 s ago: operator parse raised ValueError" in text


def test_plain_lines_have_a_rate_for_each_chain():
    assert rates(STATUS) == {"lines": "412k/s", "counts": "2.4M/s", "out": "0/s"}


def test_a_finished_job_says_what_it_did_and_where_everything_lies(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    (out / "part-0").write_bytes(b"x" * 1024)
    (out / "part-1").write_bytes(b"x" * 2048)
    (out / ".pending").mkdir()
    (out / ".pending" / "part-2").write_bytes(b"x")
    snapshot = f"file://{tmp_path}/state/checkpoints/wordcount/chk-12"
    operators = (
        OPERATORS[0].model_copy(update={"records_out": 40_000}),
        OPERATORS[3].model_copy(update={"records_in": 11_402}),
    )
    text = endings.finished(ran(but(operators=operators), results=[out], snapshot=snapshot))
    assert text == (
        "wordcount finished in 1 min 52 s: 40,000 records in, 11,402 out, 0 failed, 0 restarts.\n"
        "\n"
        "  results      out/                                    2 files, 3.0 KiB\n"
        "  checkpoint   state/checkpoints/wordcount/chk-12      final; 2.1 MiB\n"
        "  look inside  penstock state ls state/checkpoints/wordcount/chk-12\n"
    )


def test_after_a_restart_input_is_counted_from_there_and_that_is_said():
    assert "records in since the last restart, " in endings.finished(ran(but(restarts=1)))


def test_a_job_that_had_finished_says_how_to_go_on():
    text = endings.already_finished(ran(snapshot="file:///x/chk-12"), ago_ms=120_000)
    assert text == (
        "wordcount already finished, 2 min ago: its input is read to the end (chk-12).\n"
        "\n"
        "  new input       add files, then run it again; it reads only those\n"
        "  from the start  penstock run streamjob.yaml --restore none\n"
    )


def test_a_stopped_job_says_how_to_resume_at_any_parallelism():
    text = endings.stopped(
        ran(), savepoint="file:///x/savepoint-3f9a1c-07d2c5e81b90", max_parallelism=128
    )
    lines = text.splitlines()
    assert lines[0].startswith("  savepoint  /x/savepoint-3f9a1c-07d2c5e81b90")
    assert lines[1] == "  resume     penstock run streamjob.yaml"
    assert lines[2].split("  ")[-1] == "(any number up to 128)"
    assert "penstock run streamjob.yaml --parallelism 4" in lines[2]
    few = endings.stopped(ran(), savepoint=None, max_parallelism=2)
    assert few == "  resume  penstock run streamjob.yaml\n"


def test_a_cancelled_job_says_what_is_left():
    assert "begin again  penstock run" in endings.cancelled(ran(but(last_checkpoint=None)))
    assert "chk-8" in endings.cancelled(ran())


def test_a_failed_job_tells_the_record_the_line_and_what_to_do():
    assert endings.failed(ran(but(last_error=ERROR, restarts=2, phase=JobPhase.FAILED))) == (
        "error: operator parse raised ValueError: not in combined log format\n"
        "\n"
        "  operator  parse (map, weblog.py:22), subtask 1 of 2, attempt 3\n"
        "  record    '46.118.127.106 - - [20/May/2015' … (182 characters)\n"
        "  from      lines: access.log, line 8,899\n"
        "  key       none (before key_by)\n"
        "\n"
        '    File "weblog.py", line 25, in parse\n'
        '      raise ValueError("not in combined log format")\n'
        "\n"
        "The record failed 3 times, so the job is stopped. "
        "Nothing is lost: state and input position are in chk-8.\n"
        "  fix the code  then  penstock run streamjob.yaml  continues from chk-8\n"
    )


def test_a_failure_outside_of_the_authors_code_says_what_to_do():
    error = ErrorStatus(what="disk full", at_ms=0, attempt=1, fix="free some space")
    text = endings.failed(ran(but(last_error=error, last_checkpoint=None)))
    assert "  do    free some space\n" in text
    assert "No checkpoint was taken" in text


@pytest.mark.parametrize("rows", [[], [()], [("a",)], [("a", "b"), ("ccc",)]])
def test_tables_take_rows_of_any_length_and_leave_no_trailing_spaces(rows):
    assert all(line == line.rstrip() for line in table(rows).split("\n"))


def test_paths_below_this_folder_are_relative(tmp_path, monkeypatch):
    from penstock.cli.places import shown

    monkeypatch.chdir(tmp_path)
    assert shown(f"file://{tmp_path}/state/x") == "state/x"
    assert shown(str(Path("state") / "x")) == "state/x"
    assert shown("file:///elsewhere/x") == "/elsewhere/x"
    assert shown("s3://bucket/x") == "s3://bucket/x"
