"""Which backend a manifest names, and where its files lie."""

from pathlib import Path

import pytest

from penstock.core.errors import Rejected
from penstock.core.ids import JobId
from penstock.runtime.backends import backend_factory, folder_in, local_directories
from penstock.spec.streamjob import StreamJobSpec
from penstock.state.heap import open_heap


def spec(backend: str, directories: list[str]) -> StreamJobSpec:
    rocksdb = {"localDirectories": directories, "directoryStrategy": "RoundRobin"}
    return StreamJobSpec.model_validate(
        {"entrypoint": "job:job", "state": {"backend": backend, "rocksdb": rocksdb}}
    )


def test_databases_lie_in_the_named_directories_in_turns(tmp_path):
    named = [str(tmp_path / "a"), str(tmp_path / "b")]
    directories = local_directories(spec("RocksDB", named))
    assert directories is not None
    assert [directories.choose() for _ in range(3)] == [tmp_path / n for n in "aba"]


def test_without_named_directories_or_on_the_heap_there_is_nothing_to_choose(tmp_path):
    assert local_directories(spec("RocksDB", [])) is None
    assert local_directories(spec("FileSystem", [str(tmp_path)])) is None


def test_directories_of_which_none_can_be_used_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Rejected, match="no local directory can be used"):
        local_directories(spec("RocksDB", [str(tmp_path / "file")]))


def test_jobs_and_workers_that_share_a_directory_have_folders_of_their_own():
    disk, job = Path("/disk"), JobId("wordcount")
    folders = {folder_in(disk, job, Path(f"/state/worker-{i}")) for i in range(2)}
    folders.add(folder_in(disk, JobId("other"), Path("/state/worker-0")))
    assert len(folders) == 3


def test_a_backend_is_found_by_module_and_attribute_the_built_in_ones_too():
    assert backend_factory("penstock.state.heap:open_heap") is open_heap
    assert backend_factory("Memory") is open_heap
    with pytest.raises(Rejected, match="no state backend nowhere:factory"):
        backend_factory("nowhere:factory")


@pytest.mark.parametrize("name", ["os:getpid", "os:sep", "builtins:len", "builtins:dict"])
def test_what_cannot_be_called_as_a_factory_is_none(name):
    with pytest.raises(Rejected, match=f"{name} is no factory of a state backend"):
        backend_factory(name)
