"""Log lines, for people and for programs."""

import io
import json
import re

import pytest

from penstock.runtime.logs import configure_logging, get_logger


@pytest.fixture
def lines():
    stream = io.StringIO()
    configure_logging("plain", job="wordcount", stream=stream)
    yield stream
    configure_logging("plain")


def test_a_plain_line_is_time_level_event_and_fields(lines):
    get_logger().info("checkpoint completed", id=8, bytes_new=317440, path=None)
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ info checkpoint completed id=8 bytes_new=317440 "
        r"job=wordcount\n",
        lines.getvalue(),
    )


def test_a_value_with_blanks_or_lines_stays_one_quoted_field(lines):
    get_logger().warning("failed", error='not "so"\nbut so')
    assert lines.getvalue().endswith("error=\"not 'so' ⏎ but so\" job=wordcount\n")


def test_a_json_line_has_the_same_parts():
    stream = io.StringIO()
    configure_logging("json", job="wordcount", stream=stream)
    try:
        get_logger().log("WARNING", "failed", subtask=1, key=None)
    finally:
        configure_logging("plain")
    line = json.loads(stream.getvalue())
    assert (line["level"], line["event"], line["subtask"], line["job"]) == (
        "warning",
        "failed",
        1,
        "wordcount",
    )
    assert "key" not in line


def test_debug_is_not_written(lines):
    get_logger().log("debug", "hidden")
    assert lines.getvalue() == ""


def test_a_line_that_nobody_reads_ends_nothing():
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    configure_logging("plain", stream=Gone())
    get_logger().info("checkpoint completed")
    configure_logging("plain")
