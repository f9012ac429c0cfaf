"""Channels inside one process."""

from penstock.core.ids import ChannelId, CheckpointId
from penstock.core.records import END_OF_INPUT, Barrier, Batch, Watermark
from penstock.network.memory import MemoryChannel


def test_only_batches_count_against_the_capacity():
    channel = MemoryChannel(ChannelId(0, 0, 0), capacity_batches=1)
    for element in (Watermark(1), Barrier(CheckpointId(1))):
        channel.send(element)
        assert not channel.is_full
        assert channel.next() == element
    channel.send(Batch([1]))
    assert channel.is_full
    channel.send(Watermark(2))
    assert channel.next() == Batch([1])
    assert not channel.is_full


def test_elements_are_handed_over_as_they_are():
    channel = MemoryChannel(ChannelId(0, 0, 0))
    batch = Batch([object()])
    channel.send(batch)
    assert channel.next() is batch


def test_a_lost_channel_drops_what_is_sent_and_keeps_what_was():
    channel = MemoryChannel(ChannelId(0, 0, 0))
    channel.send(Watermark(1))
    channel.lose("cut")
    channel.lose("cut again")
    channel.send(END_OF_INPUT)
    assert channel.lost is not None
    assert channel.lost.reason == "cut"
    assert [channel.next(), channel.next()] == [Watermark(1), None]
