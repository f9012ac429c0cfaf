"""Checkpoint storage in memory, for tests and the simulator: gone with the process."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from penstock.storage.files import copy, new_file, os_errors_translated
from penstock.storage.store import ObjectInfo, Stored, check_path, missing


class MemoryStore:
    """A `Store` in a dict. `now_ms` is the clock of `modified_ms`."""

    def __init__(self, now_ms: Callable[[], int], *, url: str = "memory://") -> None:
        self._now_ms = now_ms
        self._url = url
        self._lock = threading.Lock()
        self._objects: dict[str, tuple[bytes, int]] = {}

    @property
    def url(self) -> str:
        """The name it was given; nothing can open it again."""
        return self._url

    def put(self, path: str, data: bytes) -> None:
        """See Store."""
        check_path(path)
        with self._lock:
            self._objects[path] = bytes(data), self._now_ms()

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """See Store."""
        check_path(path)
        with self._lock:
            if path in self._objects:
                return False
            self._objects[path] = bytes(data), self._now_ms()
            return True

    def get(self, path: str) -> bytes | None:
        """See Store."""
        check_path(path)
        with self._lock:
            found = self._objects.get(path)
        return None if found is None else found[0]

    def length(self, path: str) -> int | None:
        """See Store."""
        data = self.get(path)
        return None if data is None else len(data)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See Store."""
        with self._lock:
            found = [(p, o) for p, o in self._objects.items() if p.startswith(prefix)]
        return iter(ObjectInfo(path, len(data), at) for path, (data, at) in sorted(found))

    def delete(self, paths: Iterable[str]) -> None:
        """See Store."""
        for path in paths:
            check_path(path)
            with self._lock:
                self._objects.pop(path, None)

    def upload(self, path: str, file: Path) -> Stored:
        """See Store."""
        content = io.BytesIO()
        with os_errors_translated(file), file.open("rb") as source:
            stored = copy(source, content)
        self.put(path, content.getvalue())
        return stored

    def download(self, path: str, file: Path) -> Stored:
        """See Store."""
        data = self.get(path)
        if data is None:
            raise missing(f"{self._url}/{path}")
        with os_errors_translated(file), new_file(file, durable=False) as target:
            return copy(io.BytesIO(data), target)
