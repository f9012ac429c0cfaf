"""Where one job's log and snapshots lie, and the requests of pure code carried out on it.

`checkpoint.log` and `checkpoint.recovery` are generators that ask for one object at a time; `run`
answers them from real stores. All calls block: a coordinator makes them on threads.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from penstock.checkpoint.log import Get, List, PutIfAbsent, StoreAnswer, StoreRequest, Unknown
from penstock.core.errors import Corrupt, PenstockError
from penstock.core.ids import JobId
from penstock.core.manifest import Manifest
from penstock.runtime.coordinator_config import storage_urls
from penstock.runtime.pod import NAMESPACE_VARIABLE
from penstock.spec.streamjob import StreamJob
from penstock.storage.location import open_store
from penstock.storage.store import Store

T = TypeVar("T")
_URL = re.compile(r"[a-z0-9+]+://")


def is_url(text: str) -> bool:
    """Whether text names its storage itself."""
    return _URL.match(text) is not None


@dataclass(frozen=True, slots=True)
class JobStorage:
    """The stores of one job. `base` is what relative paths that people write start from."""

    job: JobId
    checkpoints: Store
    savepoints: Store
    base: Path

    def locate(self, path: str, *, folder_url: str | None = None) -> tuple[Store, str]:
        """The store and the path in it of an object, by URL or relative to a folder's URL (of the
        checkpoints' root, when none is given)."""
        url = path if is_url(path) else f"{folder_url or self.checkpoints.url}/{path}"
        for store in (self.checkpoints, self.savepoints):
            if url.startswith(store.url + "/"):
                return store, url.removeprefix(store.url + "/")
        scheme, _, rest = url.partition("://")
        if scheme == "file":
            return open_store("file:///"), rest.lstrip("/")
        bucket, _, key = rest.partition("/")
        return open_store(f"{scheme}://{bucket}"), key

    def run(
        self,
        generator: Generator[StoreRequest, StoreAnswer, T],
        *,
        wait: Callable[[PenstockError], bool] | None = None,
    ) -> T:
        """Answer a generator's requests until it returns.

        `wait` is called with each error of the store: it waits a little and returns True when the
        outcome is to count as unknown, False when the error shall be raised. Without it all are.

        Raises:
            Corrupt: what was read contradicts itself; it says where, with the store's address.
        """
        try:
            request = next(generator)
            while True:
                try:
                    answer = self._answer(request)
                except PenstockError as e:
                    if wait is None or not wait(e):
                        raise
                    answer = Unknown()
                request = generator.send(answer)
        except StopIteration as end:
            result: T = end.value
            return result
        except Corrupt as e:
            # Pure code knows paths only.
            if e.where is not None and e.where.startswith(f"{self.job}/"):
                e.where = f"{self.checkpoints.url}/{e.where}"
            raise

    def _answer(self, request: StoreRequest) -> StoreAnswer:
        match request:
            case PutIfAbsent(path=path, data=data):
                return self.checkpoints.put_if_absent(path, data)
            case Get(path=path):
                store, key = self.locate(path)
                return store.get(key)
            case List(prefix=prefix):
                store, key = self.locate(prefix)
                root = prefix.removesuffix(key)
                return {root + info.path: info.length for info in store.list(key)}


def storage_of(manifest: StreamJob, folder: Path) -> JobStorage:
    """Where the job of a manifest keeps its log and snapshots; relative paths start from `folder`.

    Raises:
        Rejected: the manifest names no storage, or what is none.
    """
    checkpoints_url, savepoints_url = storage_urls(manifest)
    return JobStorage(
        job=manifest.job_id(namespace=os.environ.get(NAMESPACE_VARIABLE)),
        checkpoints=open_store(checkpoints_url, base=folder),
        savepoints=open_store(savepoints_url, base=folder),
        base=folder,
    )


def put_manifest(store: Store, path: str, manifest: Manifest) -> str | None:
    """Create a manifest, or find the same one there; its digest, or None when another one is."""
    data = manifest.to_bytes()
    if store.put_if_absent(path, data) or store.get(path) == data:
        return hashlib.sha256(data).hexdigest()
    return None
