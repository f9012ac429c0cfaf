"""The stores that a coordinator's blocking calls go to: the simulated one, without delay or doubt (those
are the loop's)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from penstock.checkpoint.log import Get, List, PutIfAbsent
from penstock.runtime.job_storage import JobStorage
from penstock.storage.store import ObjectInfo
from penstock.testing.simulation.job import JOB
from penstock.testing.simulation.store import SAVEPOINTS, Delete, Put, SimulatedStore

CHECKPOINTS = "sim://checkpoints"


class Folder:
    """One root of the simulated store; see `penstock.storage.store.Store`."""

    def __init__(self, store: SimulatedStore, url: str, prefix: str) -> None:
        self.url = url
        self._store = store
        self._prefix = prefix

    def put(self, path: str, data: bytes) -> None:
        self._store.do(Put(self._prefix + path, data))

    def put_if_absent(self, path: str, data: bytes) -> bool:
        return self._store.do(PutIfAbsent(self._prefix + path, data)) is True

    def get(self, path: str) -> bytes | None:
        found = self._store.do(Get(self._prefix + path))
        assert found is None or isinstance(found, bytes), path
        return found

    def length(self, path: str) -> int | None:
        found = self.get(path)
        return None if found is None else len(found)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        found = self._store.do(List(self._prefix + prefix))
        assert isinstance(found, dict), prefix
        for path, length in sorted(found.items()):
            modified_ms = self._store.modified_ms[path]
            yield ObjectInfo(path.removeprefix(self._prefix), length, modified_ms)

    def delete(self, paths: Iterable[str]) -> None:
        self._store.do(Delete(tuple(self._prefix + path for path in paths)))

    def upload(self, path: str, file: Path) -> None:
        raise AssertionError(path)

    def download(self, path: str, file: Path) -> None:
        raise AssertionError(path)


def job_storage(store: SimulatedStore) -> JobStorage:
    """As a pod of the job opens it."""
    checkpoints = Folder(store, CHECKPOINTS, "")
    savepoints = Folder(store, SAVEPOINTS, SAVEPOINTS + "/")
    return JobStorage(JOB, checkpoints, savepoints, Path("/job"))  # type: ignore[arg-type]
