"""From a URL to a store, and whether that store can do what Penstock stands on."""

from __future__ import annotations

import uuid
from pathlib import Path

from penstock.core.errors import Rejected
from penstock.storage.local import LocalStore
from penstock.storage.store import Store


def open_store(url: str, *, base: Path | None = None) -> Store:
    """The store of a URL: `file:///folder`, `file://folder`, a plain path, or `s3://bucket/prefix`.

    Relative folders are below `base`, by default the current one. Nothing is read or written yet.

    Raises:
        Rejected: a URL of another kind, or without a bucket.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "file", url
    if scheme == "file" and rest:
        return LocalStore((base or Path()) / Path(rest).expanduser())
    if scheme == "s3":
        bucket, _, prefix = rest.partition("/")
        if bucket:
            from penstock.storage.s3 import S3Store  # boto3 takes half a second to import

            return S3Store(bucket, prefix)
    raise Rejected(
        f"not a place for checkpoints: {url!r}",
        where="storage",
        fix="use file:///folder, a path, or s3://bucket/prefix",
    )


def check_writable(store: Store) -> None:
    """Create a probe object, see that it is not created twice, and delete it again.

    Raises:
        Rejected: the store cannot be written, or replaces what it should leave alone.
        Retryable: it did not answer.
    """
    probe = f"penstock-probe-{uuid.uuid4().hex}"
    store.put_if_absent(probe, b"1")
    try:
        if store.put_if_absent(probe, b"2") or store.get(probe) != b"1":
            raise Rejected(
                "the store replaces objects that were to be created only if absent",
                where=store.url,
                fix="choose a store that knows conditional writes (If-None-Match: *)",
            )
    finally:
        store.delete([probe])
