"""Objects of one bucket as sources and sinks of files need them; the connectors' door to boto3.

(Checkpoint storage has its own, `penstock.storage.s3`, which knows no ranges and no uploads in
parts.) Credentials, region and endpoint are boto3's own business.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from penstock.connectors.places import Found
from penstock.core.errors import Rejected
from penstock.storage.s3_errors import status, translated

_CONFIG = Config(
    connect_timeout=5,
    read_timeout=30,
    retries={"mode": "standard", "total_max_attempts": 4},
    max_pool_connections=8,
    tcp_keepalive=True,
)


def split_url(url: str) -> tuple[str, str]:
    """Bucket and key of `s3://bucket/key`; the key may be empty."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    if not bucket:
        raise Rejected(f"no bucket in {url!r}", where="S3", fix="write s3://bucket/prefix")
    return bucket, key


class Bucket:
    """One bucket. Safe to use from several threads."""

    def __init__(self, name: str) -> None:
        self._name = name
        with self._errors_translated(""):
            # A session of its own: boto3's default one is not made for several threads.
            self._client: Any = boto3.Session().client("s3", config=_CONFIG)

    def list(self, prefix: str) -> Iterator[Found]:
        """All objects whose key begins with prefix, by key; keys that end in a slash left out."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._name, Prefix=prefix
        )
        with self._errors_translated(prefix):
            for page in pages:
                for found in page.get("Contents", ()):
                    if not found["Key"].endswith("/"):
                        yield Found(found["Key"], found["Size"], found["ETag"])

    def length(self, key: str) -> int | None:
        """Length of an object, None when there is none."""
        with self._errors_translated(key):
            try:
                head = self._client.head_object(Bucket=self._name, Key=key)
            except ClientError as e:
                if status(e) == 404:
                    return None
                raise
            return int(head["ContentLength"])

    def read(self, file: Found, start: int, stop: int) -> bytes:
        """Bytes `start` to `stop` of an object.

        Raises:
            Rejected: it is gone, or another object is in its place.
        """
        with self._errors_translated(file.path):
            try:
                answer = self._client.get_object(
                    Bucket=self._name,
                    Key=file.path,
                    Range=f"bytes={start}-{stop - 1}",
                    IfMatch=file.version,
                )
                data: bytes = answer["Body"].read()
            except ClientError as e:
                if status(e) not in {404, 412, 416}:
                    raise
                what = "is gone" if status(e) == 404 else "was replaced"
                raise Rejected(
                    f"the object {what}, but has not been read to its end",
                    where=self._where(file.path),
                    fix="put it back as it was; objects that are read must not change",
                ) from e
        return data

    def begin_upload(self, key: str) -> str:
        """The id of a new upload in parts."""
        with self._errors_translated(key):
            answer = self._client.create_multipart_upload(Bucket=self._name, Key=key)
        upload: str = answer["UploadId"]
        return upload

    def upload_part(self, key: str, upload: str, number: int, data: bytes) -> str:
        """Add part `number`, counted from 1; its etag. All but the last have 5 MiB at least."""
        with self._errors_translated(key):
            answer = self._client.upload_part(
                Bucket=self._name, Key=key, UploadId=upload, PartNumber=number, Body=data
            )
        etag: str = answer["ETag"]
        return etag

    def complete_upload(self, key: str, upload: str, etags: Sequence[str]) -> bool:
        """Let the object appear; False when there is no such upload (any more)."""
        parts = [{"PartNumber": n, "ETag": etag} for n, etag in enumerate(etags, start=1)]
        with self._errors_translated(key):
            try:
                self._client.complete_multipart_upload(
                    Bucket=self._name, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}
                )
            except ClientError as e:
                if e.response.get("Error", {}).get("Code") == "NoSuchUpload":
                    return False
                raise
        return True

    def abort_upload(self, key: str, upload: str) -> None:
        """Throw an upload away; one that is not there is no error."""
        with self._errors_translated(key):
            try:
                self._client.abort_multipart_upload(Bucket=self._name, Key=key, UploadId=upload)
            except ClientError as e:
                if status(e) != 404:
                    raise

    def uploads(self, prefix: str) -> Iterator[tuple[str, str]]:
        """Key and id of every upload that is neither complete nor aborted, below a prefix."""
        pages = self._client.get_paginator("list_multipart_uploads").paginate(
            Bucket=self._name, Prefix=prefix
        )
        with self._errors_translated(prefix):
            for page in pages:
                for found in page.get("Uploads", ()):
                    yield found["Key"], found["UploadId"]

    def _where(self, key: str) -> str:
        return f"s3://{self._name}/{key}"

    @contextmanager
    def _errors_translated(self, key: str) -> Iterator[None]:
        try:
            yield
        except (ClientError, BotoCoreError) as e:
            raise translated(e, bucket=self._name, where=self._where(key)) from e
