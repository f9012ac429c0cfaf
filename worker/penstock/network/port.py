"""The two ends of a channel, as the mailbox sees them; nothing here ever waits.

Adapters: `channel` between children, `memory` inside one child and in simulations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from penstock.core.ids import ChannelId
from penstock.core.records import Element


@dataclass(frozen=True, slots=True)
class ChannelLost:
    """Nothing comes through this channel any more, and its input had not ended."""

    channel: ChannelId
    reason: str


class Output(Protocol):
    """The sending end."""

    @property
    def channel(self) -> ChannelId:
        """Which channel this is."""

    @property
    def is_full(self) -> bool:
        """Whether its chain gets no input until this has drained.

        What is sent nevertheless is taken: barriers, watermarks and end of input always, and the
        batches of a slice that was begun before.
        """

    @property
    def lost(self) -> ChannelLost | None:
        """Set once the connection is gone; what is sent afterwards is dropped."""

    def send(self, element: Element) -> None:
        """Take an element; the order of calls is the order of delivery.

        Raises:
            Rejected: a record that cannot travel.
        """


class Input(Protocol):
    """The receiving end."""

    @property
    def channel(self) -> ChannelId:
        """Which channel this is."""

    @property
    def is_paused(self) -> bool:
        """Whether it is held back by `pause`."""

    @property
    def lost(self) -> ChannelLost | None:
        """Set once the connection is gone."""

    def peek(self) -> Element | None:
        """What `next` would give, without taking it."""

    def next(self) -> Element | None:
        """Take the next element; None if none is there, or while paused."""

    def pause(self) -> None:
        """Hold back all elements: back-pressure builds up until the other end is full."""

    def resume(self) -> None:
        """Go on where it was paused."""
