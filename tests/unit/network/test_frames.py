"""Control frames as bytes, and streams of bytes cut into frames."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.failure import Failure
from penstock.core.ids import AttemptNumber, ChannelId, OperatorId, SubtaskId, WorkerId
from penstock.core.snapshots import OperatorRestore
from penstock.network import frames
from penstock.network.frames import (
    Cancel,
    Failed,
    FrameReader,
    Heartbeat,
    Hello,
    OperatorMetrics,
    Prepare,
    Register,
    Said,
)

SUBTASK = SubtaskId(OperatorId("counts"), 1)
EXAMPLES: list[frames.AnyFrame] = [
    Register(worker=WorkerId(1), proof=b"p", nonce=b"n", copies=("a", "b"), pid=7),
    Hello(ChannelId(1, 2, 3), AttemptNumber(4), b"p", b"n"),
    Prepare(
        attempt=AttemptNumber(1),
        parallelism=2,
        max_parallelism=128,
        placement=(1, 0),
        subtasks=(SUBTASK,),
        restore={OperatorId("counts"): {1: OperatorRestore(lists={"offsets": (b"1", b"2")})}},
        committed=None,
        job_nonce="n",
        graph={"operators": [{"uid": "counts"}]},
    ),
    Failed(AttemptNumber(1), Failure("it broke", lines=("a", "b"), fatal=True)),
    Heartbeat(AttemptNumber(1), 5, {"counts/1": OperatorMetrics(records_in=3)}),
    Cancel(AttemptNumber(2)),
]


def test_every_kind_of_frame_is_told_apart_by_its_tag():
    kinds = frames.AnyFrame.__args__  # type: ignore[attr-defined]
    assert len({kind.__struct_config__.tag for kind in kinds}) == len(kinds)
    assert {type(example) for example in EXAMPLES} <= set(kinds)


@given(st.lists(st.sampled_from(EXAMPLES), max_size=6), st.data())
def test_frames_are_the_same_however_their_bytes_were_cut(
    sent: list[frames.AnyFrame], data: st.DataObject
):
    stream = b"".join(map(frames.encode, sent))
    reader, received = FrameReader(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        received += reader.feed(stream[:size])
        stream = stream[size:]
    assert received == sent


@given(st.binary(max_size=300))
def test_garbage_is_a_value_error(data: bytes):
    for bytes_in in (data, len(data).to_bytes(4, "big") + data):
        try:
            list(FrameReader().feed(bytes_in))
        except ValueError:
            continue


@given(
    st.sampled_from(EXAMPLES),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_damaged_frames_are_a_value_error_or_other_frames(
    frame: frames.AnyFrame, damage: list[tuple[int, int]]
):
    data = bytearray(frames.encode(frame))
    for at, value in damage:
        data[4 + at % (len(data) - 4)] = value
    try:
        list(FrameReader().feed(bytes(data)))
    except ValueError:
        return


def test_deeply_nested_bytes_are_a_value_error():
    nested = b"\x91" * 100_000 + b"\x01"
    said = msgspec.msgpack.encode({"type": "Said", "level": "i", "message": "m", "fields": {}})
    with pytest.raises(ValueError):
        frames.decode(said[:-1] + b"\x81\xa1a" + nested)


def test_a_frame_longer_than_allowed_is_refused_before_it_is_read():
    length = (101).to_bytes(4, "big")
    with pytest.raises(ValueError, match="at most 100"):
        list(FrameReader(bytes_max=100).feed(length))
    assert list(FrameReader(bytes_max=101).feed(length)) == []
    with pytest.raises(ValueError, match="a frame of"):
        list(FrameReader().feed(b"\xff\xff\xff\xff"))


def test_frames_before_garbage_are_still_given():
    good = Said("info", "hello")
    received = FrameReader().feed(frames.encode(good) + b"\0\0\0\x01\xc1")
    assert next(received) == good
    with pytest.raises(ValueError, match="no frame"):
        next(received)
