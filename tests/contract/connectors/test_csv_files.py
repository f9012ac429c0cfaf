"""Files of CSV whose quoted cells hold line breaks, beside Python's own reader; crashes anywhere."""

import csv
import gzip
import io
import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock import formats, sources
from penstock.connectors import split
from penstock.core.errors import Rejected
from penstock.dataflow.connector import END, IDLE, Reader, SourceContext

Row = tuple[str, str]

cells = st.text(st.sampled_from('\n\r",; aé\u2028'), max_size=6)


def opened(folder: Path, format: Any, name: str) -> Reader[Row]:
    source = sources.Files(name, format)
    return source.open(
        SourceContext(
            uid="rows",
            subtask=0,
            parallelism=1,
            now_ms=lambda: 0,
            folder=folder,
            warn=lambda _: None,
        )
    )


def next_of(reader: Reader[Row], limit: int) -> Sequence[Row]:
    """What comes next; nothing at the end. A packed file may need many polls for it."""
    while (polled := reader.poll(limit)) is IDLE:
        pass
    return () if polled is END else polled


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    rows=st.lists(st.tuples(cells, cells), max_size=12),
    header=st.booleans(),
    ends=st.sampled_from(["\n", "\r\n"]),
    is_cut=st.booleans(),
    is_gzipped=st.booleans(),
    block_bytes=st.sampled_from([1, 2, 3, 7, 64, 1 << 18]),
    seed=st.integers(0, 2**32),
)
def test_a_record_of_several_lines_comes_exactly_once_through_any_crashes(
    rows: list[Row],
    header: bool,
    ends: str,
    is_cut: bool,
    is_gzipped: bool,
    block_bytes: int,
    seed: int,
    tmp_path_factory: pytest.TempPathFactory,
):
    folder, random = tmp_path_factory.mktemp("csv"), Random(seed)
    text = io.StringIO()
    # Python's writer leaves a cell with nothing but a carriage return in it without quotes.
    always = any("\r" in cell for row in rows for cell in row) or random.random() < 0.5
    quoting = csv.QUOTE_ALL if always else csv.QUOTE_MINIMAL
    written = csv.writer(text, lineterminator=ends, quoting=quoting)
    written.writerows([("first\ncolumn", "second")] * header + rows)
    data = text.getvalue().removesuffix(ends if is_cut else "").encode()
    name = "in.csv.gz" if is_gzipped else "in.csv"
    (folder / name).write_bytes(gzip.compress(data) if is_gzipped else data)

    format = formats.Csv(Row, header=header)
    got: list[Row] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(split, "BLOCK_BYTES", block_bytes)
        reader = opened(folder, format, name)
        is_over = False
        while not is_over:
            for _ in range(random.randint(1, 3)):
                polled = next_of(reader, random.randint(1, 2))
                is_over = not polled
                got += polled
            state = reader.snapshot()
            next_of(reader, random.randint(1, 3))  # lost in the crash
            reader.close()
            reader = opened(folder, format, name)
            reader.restore(state)
    assert got == rows


def test_what_is_left_begins_at_the_bytes_and_lines_of_the_next_record(tmp_path: Path):
    (tmp_path / "in.csv").write_bytes(b'a,b\n1,"x\n\ny"\n2,"z"\n"3\n",w\n')
    reader = opened(tmp_path, formats.Csv(Row), "in.csv")
    seen = []
    for wanted in [("1", "x\n\ny"), ("2", "z"), ("3\n", "w")]:
        assert reader.poll(1) == [wanted]
        seen.append(reader.position(0))
        left = json.loads(reader.snapshot().splits[0])
        seen.append((left["offset"], left["line"]))
    assert seen == [
        "in.csv, line 2",
        (len(b'a,b\n1,"x\n\ny"\n'), 4),
        "in.csv, line 5",
        (len(b'a,b\n1,"x\n\ny"\n2,"z"\n'), 5),
        "in.csv, line 6",
        (len(b'a,b\n1,"x\n\ny"\n2,"z"\n"3\n",w\n'), 7),
    ]


def test_a_quote_inside_of_a_cell_is_a_character(tmp_path: Path):
    (tmp_path / "in.csv").write_bytes(b'5" pipe,"of\nlead"\n3" pipe,x\n')
    reader = opened(tmp_path, formats.Csv(Row, header=False), "in.csv")
    assert next_of(reader, 10) == [('5" pipe', "of\nlead"), ('3" pipe', "x")]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (b'"never closed,1\nx,y\n', "does not end"),
        (b'"closed\nand"on,1\nx,y\n', "expected"),
        (b'"a\nb",c,d\nx,y\n', "."),
        (b'"' + b"a\n" * 100_000 + b'",y\n', "field limit"),
    ],
)
def test_a_record_that_is_none_is_told_with_its_first_line(tmp_path: Path, bad: bytes, why: str):
    (tmp_path / "in.csv").write_bytes(b'1,"o\nk"\n' + bad)
    reader = opened(tmp_path, formats.Csv(Row, header=False), "in.csv")
    assert reader.poll(10) == [("1", "o\nk")]
    with pytest.raises(Rejected, match=why) as told:
        reader.poll(10)
    assert told.value.where == "in.csv, line 3"
    left = json.loads(reader.snapshot().splits[0])
    assert (left["offset"], left["line"]) == (len(b'1,"o\nk"\n'), 2)
