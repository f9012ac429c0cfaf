"""Part files in a bucket: each an upload in parts, begun under its final key, completed at commit.

Until then no reader sees anything, and only a listing of uploads does. A bucket rule that aborts
unfinished uploads must leave them longer than a job may hold its commits.
"""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor

from penstock.connectors.parts import Part, PartNames, PendingFile, vanished
from penstock.connectors.s3_objects import Bucket, split_url

PART_BYTES = 8 << 20
"""Of all parts but the last; S3 refuses any below 5 MiB."""
_UNDER_WAY = 2


class S3Target:
    """`s3://bucket/prefix`, as a folder."""

    def __init__(self, url: str) -> None:
        self._url = url
        name, prefix = split_url(url)
        self._bucket = Bucket(name)
        self._prefix = prefix.rstrip("/") + "/" if prefix else ""
        self._uploader = ThreadPoolExecutor(1, thread_name_prefix="s3-parts")

    def begin(self, name: str) -> Part:
        """See Target."""
        return _S3Part(self._url, name, self._bucket, self._prefix + name, self._uploader)

    def commit(self, pending: PendingFile) -> None:
        """See Target."""
        key = self._prefix + pending.name
        if self._bucket.complete_upload(key, pending.upload, pending.etags):
            return
        if self._bucket.length(key) is None:
            raise vanished(f"{self._url.rstrip('/')}/{pending.name}")

    def remove_leftovers(self, names: PartNames, keep: Collection[PendingFile]) -> None:
        """See Target."""
        kept = {pending.upload for pending in keep}
        for key, upload in list(self._bucket.uploads(f"{self._prefix}part-")):
            if names.is_leftover(key.removeprefix(self._prefix)) and upload not in kept:
                self._bucket.abort_upload(key, upload)


class _S3Part:
    def __init__(
        self, url: str, name: str, bucket: Bucket, key: str, uploader: ThreadPoolExecutor
    ) -> None:
        self._url = url
        self._name = name
        self._bucket = bucket
        self._key = key
        self._uploader = uploader
        self._upload = bucket.begin_upload(key)
        self._buffer = bytearray()
        self._length = 0
        self._sent: list[Future[str]] = []

    def write(self, data: bytes) -> None:
        self._buffer += data
        self._length += len(data)
        while len(self._buffer) >= PART_BYTES:
            self._send(bytes(self._buffer[:PART_BYTES]))
            del self._buffer[:PART_BYTES]

    def prepare(self) -> PendingFile:
        if self._buffer:
            self._send(bytes(self._buffer))
        etags = tuple(part.result() for part in self._sent)
        return PendingFile(self._url, self._name, self._length, self._upload, etags)

    def discard(self) -> None:
        for part in self._sent:
            part.cancel()
        self._bucket.abort_upload(self._key, self._upload)

    def _send(self, data: bytes) -> None:
        if len(self._sent) >= _UNDER_WAY:
            self._sent[-_UNDER_WAY].result()  # bounds the memory, and tells of a failure early
        number = len(self._sent) + 1
        self._sent.append(
            self._uploader.submit(self._bucket.upload_part, self._key, self._upload, number, data)
        )
