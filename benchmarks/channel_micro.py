"""How fast records go from one process to another over one channel, 2,000 a batch, on loopback.

PYTHONPATH=worker python benchmarks/channel_micro.py [BATCHES]
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import time

from penstock.core.ids import AttemptNumber, ChannelId
from penstock.core.records import END_OF_INPUT, Batch
from penstock.network.poller import Poller

RECORDS = 2_000
CHANNEL = ChannelId(0, 0, 0)


def send(address: tuple[str, int], batches: int) -> None:
    """The other process: sends while its output is not full."""
    keys = [f"word-{i % 997}" for i in range(RECORDS)]
    batch = Batch(list(zip(keys, range(RECORDS), strict=True)), keys, list(range(RECORDS)))
    poller = Poller(b"token", AttemptNumber(1))
    output = poller.connect(CHANNEL, address, time.monotonic() + 10)
    for _ in range(batches):
        output.send(batch)
        poller.poll(0)
        while output.is_full:
            poller.poll(1)
    output.send(END_OF_INPUT)
    while poller.has_unsent:
        poller.poll(1)
    poller.close()


def main() -> None:
    batches = int(sys.argv[1]) if len(sys.argv) > 1 else 2_000
    poller = Poller(b"token", AttemptNumber(1))
    source = poller.input(CHANNEL)
    sender = multiprocessing.get_context("spawn").Process(
        target=send, args=(poller.listen(), batches)
    )
    sender.start()
    poller.poll(None)
    while source.peek() is None:
        poller.poll(1)
    begun, records, polls = time.perf_counter(), 0, 0
    while (element := source.next()) is not END_OF_INPUT:
        if element is None:
            assert not poller.poll(1).lost
            polls += 1
        elif isinstance(element, Batch):
            records += len(element.values)
    seconds = time.perf_counter() - begun
    sender.join()
    poller.close()
    figures = {
        "records": "(str, int), keyed, timed",
        "million_per_second": round(records / seconds / 1e6, 2),
        "polls_per_batch": round(polls / batches, 2),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
