"""Checkpoint storage in an S3 bucket; the only door to boto3.

Credentials, region and endpoint are boto3's own business (environment, files, roles;
`AWS_ENDPOINT_URL` for other stores than Amazon's, then with path-style addresses). Requests are
repeated beneath a few times, so `put_if_absent` may meet its own first try and say False.
"""

from __future__ import annotations

import random
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from penstock.core.errors import Rejected, Retryable
from penstock.storage.files import BLOCK_BYTES, new_file, os_errors_translated
from penstock.storage.s3_errors import status, translated, translated_code
from penstock.storage.store import ObjectInfo, Stored, check_path, missing

PART_BYTES = 8 << 20
"""Larger files go up in parts of this size; at most ten of them are in memory per upload."""

_DELETE_BATCH = 1000  # S3's own limit
_CONFLICT_TRIES = 8
_TRANSFER = TransferConfig(
    multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES, max_concurrency=4
)


class S3Store:
    """A `Store` in a bucket, below `prefix`."""

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        endpoint_url: str | None = None,
        connect_timeout_s: float = 5,
        read_timeout_s: float = 30,
        tries: int = 3,
    ) -> None:
        self._bucket = bucket
        self._prefix = prefix.strip("/")
        config = Config(
            connect_timeout=connect_timeout_s,
            read_timeout=read_timeout_s,
            retries={"mode": "standard", "total_max_attempts": tries},
            max_pool_connections=32,
            tcp_keepalive=True,
        )
        with self._errors_translated(""):
            try:
                # A session of its own: boto3's default one is not made for several threads.
                self._client: Any = boto3.Session().client(
                    "s3", endpoint_url=endpoint_url, config=config
                )
            except ValueError as e:  # an endpoint that is no URL
                raise Rejected(
                    f"S3 cannot be used like this: {e}",
                    where=self.url,
                    fix="write AWS_ENDPOINT_URL as in http://localhost:9000, or leave it out",
                ) from e

    @property
    def url(self) -> str:
        """`s3://bucket/prefix`."""
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def put(self, path: str, data: bytes) -> None:
        """See Store."""
        with self._errors_translated(path):
            self._client.put_object(Bucket=self._bucket, Key=self._key(path), Body=data)

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """See Store. 412 means taken; 409 means a race without a winner yet, so again."""
        key = self._key(path)
        with self._errors_translated(path):
            for attempt in range(_CONFLICT_TRIES):
                try:
                    self._client.put_object(
                        Bucket=self._bucket, Key=key, Body=data, IfNoneMatch="*"
                    )
                except ClientError as e:
                    if status(e) == 412:
                        return False
                    if status(e) != 409:
                        raise
                    time.sleep(random.uniform(0, 0.05 * 2**attempt))
                else:
                    return True
        raise Retryable("others write the same object all the time", where=self._where(path))

    def get(self, path: str) -> bytes | None:
        """See Store."""
        with self._errors_translated(path):
            body = self._open(path)
            return None if body is None else bytes(body.read())

    def length(self, path: str) -> int | None:
        """See Store."""
        with self._errors_translated(path):
            try:
                found = self._client.head_object(Bucket=self._bucket, Key=self._key(path))
            except ClientError as e:
                if status(e) != 404:
                    raise
                # HEAD has no body, so a missing bucket looks the same; a listing tells them apart.
                self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._key(path), MaxKeys=1)
                return None
            return int(found["ContentLength"])

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See Store. Page by page."""
        root = f"{self._prefix}/" if self._prefix else ""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=root + prefix
        )
        with self._errors_translated(prefix):
            for page in pages:
                for found in page.get("Contents", ()):
                    key = found["Key"]
                    if not key.endswith("/"):  # consoles make such keys to show a folder
                        modified_ms = int(found["LastModified"].timestamp() * 1000)
                        yield ObjectInfo(key.removeprefix(root), found["Size"], modified_ms)

    def delete(self, paths: Iterable[str]) -> None:
        """See Store. A thousand in one request, within which S3 promises no order."""
        remaining = iter(paths)
        if first := list(islice(remaining, 1)):
            self._delete(first)
        while batch := list(islice(remaining, _DELETE_BATCH)):
            self._delete(batch)

    def upload(self, path: str, file: Path) -> Stored:
        """See Store. A killed process may leave parts behind; a lifecycle rule has to remove them."""
        key = self._key(path)
        with os_errors_translated(file), file.open("rb") as opened:
            source = _Summed(opened)
            with self._errors_translated(path):
                if file.stat().st_size <= PART_BYTES:
                    body = source.read()
                    self._client.put_object(Bucket=self._bucket, Key=key, Body=body)
                else:
                    self._client.upload_fileobj(source, self._bucket, key, Config=_TRANSFER)
        return source.stored

    def download(self, path: str, file: Path) -> Stored:
        """See Store."""
        # In this order: some of botocore's errors are OSErrors as well.
        with os_errors_translated(file), self._errors_translated(path):
            body = self._open(path)
            if body is None:
                raise missing(self._where(path))
            with body, new_file(file, durable=False) as target:
                length, crc32 = 0, 0
                for block in body.iter_chunks(BLOCK_BYTES):
                    target.write(block)
                    length += len(block)
                    crc32 = zlib.crc32(block, crc32)
            return Stored(length, crc32)

    def _delete(self, batch: Sequence[str]) -> None:
        keys = [{"Key": self._key(path)} for path in batch]
        with self._errors_translated(batch[0]):
            answer = self._client.delete_objects(
                Bucket=self._bucket, Delete={"Objects": keys, "Quiet": True}
            )
        for error in answer.get("Errors", ()):
            if error["Code"] != "NoSuchKey":
                where = f"s3://{self._bucket}/{error.get('Key', '')}"
                raise translated_code(
                    error["Code"], error.get("Message", ""), bucket=self._bucket, where=where
                )

    def _open(self, path: str) -> Any:
        try:
            return self._client.get_object(Bucket=self._bucket, Key=self._key(path))["Body"]
        except self._client.exceptions.NoSuchKey:
            return None

    def _key(self, path: str) -> str:
        check_path(path)
        return f"{self._prefix}/{path}" if self._prefix else path

    def _where(self, path: str) -> str:
        return f"{self.url}/{path}"

    @contextmanager
    def _errors_translated(self, path: str) -> Iterator[None]:
        try:
            yield
        except (ClientError, BotoCoreError) as e:
            raise translated(e, bucket=self._bucket, where=self._where(path)) from e


class _Summed:
    """A stream that can only be read forwards, and knows what was read.

    Without `seek` the transfer reads each byte once and in order, which a checksum needs.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._length = 0
        self._crc32 = 0

    def read(self, size: int = -1) -> bytes:
        block = self._file.read(size)
        self._length += len(block)
        self._crc32 = zlib.crc32(block, self._crc32)
        return block

    @property
    def stored(self) -> Stored:
        return Stored(self._length, self._crc32)
