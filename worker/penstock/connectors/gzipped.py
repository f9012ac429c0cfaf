"""Unpacking gzip from a stream that may have to be waited for."""

from __future__ import annotations

import zlib

from penstock.connectors.places import Stream
from penstock.core.errors import Rejected

_GZIP = 16 + zlib.MAX_WBITS


class Gunzipped:
    """What a gzip stream, of one member or several, unpacks to, without the first `skip` bytes."""

    def __init__(self, packed: Stream, *, skip: int, where: str) -> None:
        self._packed = packed
        self._skip = skip
        self._where = where
        self._member = zlib.decompressobj(_GZIP)
        self._waiting = b""
        self._ended = False
        self._begun = False

    def read(self, size: int, /) -> bytes | None:
        """See Stream. Skipping is done a block per call, each answered with None."""
        while True:
            if not self._waiting and not self._refill(size):
                return None
            if not self._waiting and not self._unpacks_more():
                return b""
            try:
                block = self._member.decompress(self._waiting, size)
            except zlib.error as e:
                raise Rejected(
                    f"the file is not gzip, or damaged: {e}",
                    where=self._where,
                    fix="replace the file; names that end in .gz are unpacked",
                ) from e
            self._begun = True
            self._waiting = self._member.unconsumed_tail
            if self._member.eof:
                # Another member may follow; zeros after the last one are padding.
                self._waiting = self._member.unused_data.lstrip(b"\0")
                self._member = zlib.decompressobj(_GZIP)
                self._begun = False
            if self._skip:
                skipped = min(self._skip, len(block))
                self._skip -= skipped
                block = block[skipped:]
                if not block and skipped:
                    return None
            if block:
                return block

    def close(self) -> None:
        """See Stream."""
        self._packed.close()

    def _refill(self, size: int) -> bool:
        if self._ended:
            return True
        packed = self._packed.read(size)
        if packed is None:
            return False
        self._waiting = packed if self._begun else packed.lstrip(b"\0")
        self._ended = not packed
        return True

    def _unpacks_more(self) -> bool:
        """At the end of what is packed, or between two reads of it."""
        if not self._ended:
            return True
        if self._begun:
            raise Rejected(
                "the gzip file ends in the middle",
                where=self._where,
                fix="replace the file by a whole one",
            )
        return False
