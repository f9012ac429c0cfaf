"""Unpacking gzip from a stream that may have to be waited for."""

from __future__ import annotations

import zlib
from typing import Any

from penstock.connectors.places import Stream
from penstock.core.errors import Rejected

_GZIP = 16 + zlib.MAX_WBITS


class Gunzipped:
    """What a gzip stream, of one member or several, unpacks to, without the first `skip` bytes."""

    def __init__(self, packed: Stream, *, skip: int, where: str) -> None:
        self._packed = packed
        self._skip = skip
        self._where = where
        self._waiting = b""
        """Packed bytes that were read, and not unpacked yet."""
        self.packed_taken = 0
        """How many packed bytes were read."""
        self._ended = False
        """Whether there are no more of them to read."""
        self._member: Any = zlib.decompressobj(_GZIP)

    def read(self, size: int, /) -> bytes | None:
        """See Stream. Skipping is done a block per call, each answered with None."""
        while True:
            if not self._waiting and not self._ended:
                packed = self._packed.read(size)
                if packed is None:
                    return None
                self._waiting, self._ended = packed, not packed
                self.packed_taken += len(packed)
            if self._member.eof and not self._next_member():
                if self._ended:
                    return b""
                continue
            block = self._unpack(size)
            if skipped := min(self._skip, len(block)):
                self._skip -= skipped
                block = block[skipped:]
                if not block:
                    return None
            if block:
                return block

    def close(self) -> None:
        """See Stream."""
        self._packed.close()

    def _next_member(self) -> bool:
        """Whether another member begins in what waits; zeros between members are padding."""
        self._waiting = self._waiting.lstrip(b"\0")
        if self._waiting:
            self._member = zlib.decompressobj(_GZIP)
        return bool(self._waiting)

    def _unpack(self, size: int) -> bytes:
        try:
            block: bytes = self._member.decompress(self._waiting, size)
        except zlib.error as e:
            raise Rejected(
                f"the file is not gzip, or damaged: {e}",
                where=self._where,
                fix="replace the file; names that end in .gz are unpacked",
            ) from e
        if self._member.eof:
            self._waiting = self._member.unused_data
        else:
            self._waiting = self._member.unconsumed_tail
            if self._ended and not block:
                raise Rejected(
                    "the gzip file ends in the middle",
                    where=self._where,
                    fix="replace the file by a whole one",
                )
        return block
