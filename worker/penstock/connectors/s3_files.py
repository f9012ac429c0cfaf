"""Objects of a bucket, found by a pattern, fetched ahead on a thread of their own."""

from __future__ import annotations

import re
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

from penstock.connectors.places import Found, Stream
from penstock.connectors.s3_objects import Bucket, split_url

_FETCH_BYTES = 4 << 20
_AHEAD = 2
"""Fetches under way or waiting; each holds up to `_FETCH_BYTES` in memory."""

_PATTERN = re.compile(r"[*?\[]")
_VISIBLE = r"(?!(?<![^/])\.)"
"""As in a shell, no pattern matches a dot that begins a name."""
_MEANING = {
    "**/": rf"(?:{_VISIBLE}[^/]+/)*",
    "**": rf"(?:{_VISIBLE}[^/]+/)*{_VISIBLE}[^/]*",
    "*": rf"{_VISIBLE}[^/]*",
    "?": rf"{_VISIBLE}[^/]",
}


class S3Files:
    """The objects that `s3://bucket/pattern` matches.

    `*` and `?` stop at a slash, `**` does not, and none matches a name that begins with a dot. A key without a pattern is that object, or, as in a
    folder, all below it but those with a part that begins with a dot or an underscore.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        name, self._pattern = split_url(url)
        self._bucket = Bucket(name)
        self._prefix = _PATTERN.split(self._pattern)[0]

    def __str__(self) -> str:
        return self._url

    def find(self) -> list[Found]:
        """See Place. Paths are keys."""
        found = sorted(self._bucket.list(self._prefix), key=lambda file: file.path)
        if self._prefix != self._pattern:
            matches = re.compile(pattern_of_keys(self._pattern)).fullmatch
            return [file for file in found if matches(file.path)]
        if exact := [file for file in found if file.path == self._pattern]:
            return exact
        folder = self._pattern.rstrip("/") + "/" if self._pattern else ""
        return [file for file in found if _is_below(folder, file.path)]

    def open(self, file: Found, offset: int) -> Stream:
        """See Place."""
        return _Fetched(self._bucket, file, offset)


class _Fetched:
    """An object as it comes: `read` gives None until the next piece is there."""

    def __init__(self, bucket: Bucket, file: Found, offset: int) -> None:
        self._bucket = bucket
        self._file = file
        self._offset = offset
        """Where the next fetch begins."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="s3-fetch")
        self._coming: deque[Future[bytes]] = deque()
        self._here = memoryview(b"")
        self._fetch_ahead()

    def read(self, size: int, /) -> bytes | None:
        if not self._here:
            if not self._coming:
                return b""
            if not self._coming[0].done():
                return None
            self._here = memoryview(self._coming.popleft().result())
            self._fetch_ahead()
        block, self._here = self._here[:size], self._here[size:]
        return bytes(block)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _fetch_ahead(self) -> None:
        while len(self._coming) < _AHEAD and self._offset < self._file.length:
            stop = min(self._offset + _FETCH_BYTES, self._file.length)
            self._coming.append(
                self._thread.submit(self._bucket.read, self._file, self._offset, stop)
            )
            self._offset = stop


def pattern_of_keys(pattern: str) -> str:
    """A regular expression for what a pattern of keys matches."""
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]+\])", pattern)
    return "".join(
        _MEANING.get(part)
        or (_VISIBLE + part.replace("[!", "[^") if part.startswith("[") else re.escape(part))
        for part in parts
    )


def _is_below(folder: str, key: str) -> bool:
    inside = key.removeprefix(folder)
    if folder and inside == key:
        return False
    return not any(part.startswith((".", "_")) for part in inside.split("/"))
