"""Which state backend a manifest names, and what it is opened with."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any, cast

from penstock.core.errors import Rejected
from penstock.core.ids import JobId
from penstock.core.keygroups import KeyGroupRange
from penstock.spec.streamjob import StreamJobSpec
from penstock.state.backend import BackendFactory, KeyedBackend
from penstock.state.directories import LocalDirectories, Strategy

BUILT_IN = {
    "Memory": "penstock.state.heap:open_heap",
    "FileSystem": "penstock.state.heap:open_heap",
    "RocksDB": "penstock.state.rocks:open_rocks",
}

_CELL_BYTES = 256
"""About what one key's cell, row and value cost in the object cache."""


def backend_factory(name: str) -> BackendFactory:
    """The factory that `state.backend` names; the built-in ones use the same door as others.

    Raises:
        Rejected: there is no such module or attribute, or it cannot be called as a factory is.
    """
    module, _, attribute = BUILT_IN.get(name, name).partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
        inspect.signature(found).bind(None, groups=None, max_parallelism=None, options=None)
    except (TypeError, ValueError) as e:
        raise Rejected(
            f"{name} is no factory of a state backend: {e}",
            where="spec.state.backend",
            fix="it is called with a folder, groups=, max_parallelism= and options=",
        ) from e
    except (ImportError, AttributeError) as e:
        raise Rejected(
            f"there is no state backend {name}: {e}",
            where="spec.state.backend",
            fix=f"use one of {', '.join(BUILT_IN)}, or a factory package.module:attribute",
        ) from e
    return cast("BackendFactory", found)


def open_backend(
    spec: StreamJobSpec, folder: Path, *, groups: KeyGroupRange, max_parallelism: int
) -> KeyedBackend:
    """An empty backend for one subtask, with its files under folder."""
    options: dict[str, Any] = {}
    if spec.state.backend == "RocksDB":
        # The other half of the budget is the object cache's, which stands before it.
        options["memory_bytes"] = spec.state.rocksdb.memory_bytes // 2
    folder.mkdir(parents=True, exist_ok=True)
    factory = backend_factory(spec.state.backend)
    return factory(folder, groups=groups, max_parallelism=max_parallelism, options=options)


def local_directories(spec: StreamJobSpec) -> LocalDirectories | None:
    """The directories that the manifest names for databases, None when it names none.

    Raises:
        Rejected: none of them can be used.
    """
    rocksdb = spec.state.rocksdb
    if spec.state.backend != "RocksDB" or not rocksdb.local_directories:
        return None
    return LocalDirectories(
        [Path(path) for path in rocksdb.local_directories],
        strategy=Strategy(rocksdb.directory_strategy.value),
    )


def folder_in(directory: Path, job: JobId, workdir: Path) -> Path:
    """A worker's folder in one of several local directories; other jobs and workers may share it."""
    return directory / "penstock" / job / workdir.name


def cached_keys_max(spec: StreamJobSpec) -> int:
    """How many keys the object cache holds."""
    return max(10_000, spec.state.rocksdb.memory_bytes // 2 // _CELL_BYTES)
