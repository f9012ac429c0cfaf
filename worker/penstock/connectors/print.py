"""The sink `Print`: records on standard output, for people; at least once."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from penstock.core.errors import Rejected
from penstock.dataflow.connector import Sink, SinkContext, Writer


class Print(Sink[object]):
    """Each record as `print` shows it, after `prefix`, as soon as it comes.

    At-least-once: after a failure, records since the last checkpoint are printed again.
    """

    exactly_once = False

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix

    def open(self, ctx: SinkContext) -> Writer[object]:
        """See Sink."""
        return _Printer(self._prefix)


class _Printer(Writer[object]):
    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def write(self, records: Sequence[object]) -> None:
        prefix = self._prefix
        # One write per batch: subtasks of several processes share the terminal.
        text = "".join([f"{prefix}{record}\n" for record in records])
        try:
            try:
                sys.stdout.write(text)
            except UnicodeEncodeError as e:  # a terminal that cannot show it
                sys.stdout.write(text.encode(e.encoding, "replace").decode(e.encoding))
            sys.stdout.flush()
        except OSError as e:
            raise Rejected(
                f"standard output cannot be written: {e.strerror}",
                where="sinks.Print",
                fix="let its reader read to the end, or use sinks.Files",
            ) from e

    def prepare(self, checkpoint: int) -> Sequence[bytes]:
        return ()

    def commit(self, transaction: bytes) -> None:
        pass

    def abort_except(self, transactions: Sequence[bytes]) -> None:
        pass

    def close(self) -> None:
        pass
