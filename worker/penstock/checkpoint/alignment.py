"""Alignment: when has one subtask of a chain seen the barrier on all its channels?

It decides when to take a snapshot and which channels wait meanwhile. It never sees a record. There
is one checkpoint at a time; the mailbox carries out what comes back: snapshot, then send the barrier
on, then continue.

A channel that ended counts as one whose barrier came. A subtask without open channels (a source, or
one whose inputs all ended) has no barriers to wait for, so it goes by the coordinator's trigger,
which is sent to every worker.
"""

from __future__ import annotations

from collections.abc import Iterable

from penstock.core.ids import ChannelId, CheckpointId


class Alignment:
    """Barriers of one chain's subtask.

    `barrier`, `ended` and `trigger` return the checkpoint to snapshot now, else None. Of a channel
    that ended, the snapshot comes before the end is processed.
    """

    def __init__(self, channels: Iterable[ChannelId]) -> None:
        self._open = set(channels)
        self._aligning: CheckpointId | None = None
        self._arrived: set[ChannelId] = set()
        self._triggered = CheckpointId(0)
        self._past = CheckpointId(0)

    def barrier(self, channel: ChannelId, checkpoint: CheckpointId) -> CheckpointId | None:
        """A barrier came; one that is a duplicate or outdated changes nothing."""
        if checkpoint <= self._past or checkpoint < (self._aligning or 0):
            return None
        if checkpoint != self._aligning:
            self._aligning = checkpoint
            self._arrived.clear()
        self._arrived.add(channel)
        return self._complete()

    def ended(self, channel: ChannelId) -> CheckpointId | None:
        """The input of a channel ended: snapshot what is returned before processing the end."""
        self._open.discard(channel)
        return self._complete()

    def trigger(self, checkpoint: CheckpointId) -> CheckpointId | None:
        """The coordinator started a checkpoint, and thereby left every older one behind."""
        if checkpoint <= max(self._past, self._triggered):
            return None
        self._triggered = checkpoint
        self._leave(CheckpointId(checkpoint - 1))
        return self._complete()

    def abort(self, checkpoint: CheckpointId) -> None:
        """The coordinator gave a checkpoint up: no channel waits for it any more."""
        self._leave(checkpoint)

    def blocked(self, channel: ChannelId) -> bool:
        """Whether this channel's records have to wait; a single channel never does."""
        return self._aligning is not None and channel in self._arrived

    def _complete(self) -> CheckpointId | None:
        due = self._aligning
        if due is None and not self._open and self._triggered > self._past:
            due = self._triggered
        if due is None or not self._open <= self._arrived:
            return None
        self._leave(due)
        return due

    def _leave(self, checkpoint: CheckpointId) -> None:
        self._past = max(self._past, checkpoint)
        if self._aligning is not None and self._aligning <= self._past:
            self._aligning = None
            self._arrived.clear()
