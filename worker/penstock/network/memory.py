"""Channels inside one process: between subtasks of one child, and in simulations."""

from __future__ import annotations

from collections import deque

from penstock.core.ids import ChannelId
from penstock.core.records import Batch, Element
from penstock.network.port import ChannelLost

CAPACITY_BATCHES = 8


class MemoryChannel:
    """Both ends of a channel that holds `capacity_batches` batches before it is full."""

    def __init__(self, channel: ChannelId, capacity_batches: int = CAPACITY_BATCHES) -> None:
        self.channel = channel
        self.capacity_batches = capacity_batches
        self.lost: ChannelLost | None = None
        self.is_paused = False
        self._elements: deque[Element] = deque()
        self._batches = 0

    @property
    def is_full(self) -> bool:
        """Whether as many batches are inside as it has room for."""
        return self._batches >= self.capacity_batches

    def send(self, element: Element) -> None:
        """Take an element; see `port.Output`."""
        if self.lost is None:
            self._elements.append(element)
            self._batches += isinstance(element, Batch)

    def peek(self) -> Element | None:
        """What `next` would give, without taking it."""
        return self._elements[0] if self._elements and not self.is_paused else None

    def next(self) -> Element | None:
        """Take the next element; None if none is there, or while paused."""
        if not self._elements or self.is_paused:
            return None
        element = self._elements.popleft()
        self._batches -= isinstance(element, Batch)
        return element

    def pause(self) -> None:
        """Hold back all elements."""
        self.is_paused = True

    def resume(self) -> None:
        """Go on where it was paused."""
        self.is_paused = False

    def lose(self, reason: str) -> None:
        """Break the channel, as a connection breaks: what is inside may still be taken."""
        if self.lost is None:
            self.lost = ChannelLost(self.channel, reason)
