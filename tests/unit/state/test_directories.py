"""Several local directories: unusable ones are skipped, the others are shared out."""

import logging
import shutil
from collections import namedtuple

import pytest

from penstock.core.errors import Rejected
from penstock.state.directories import LocalDirectories, Strategy

Usage = namedtuple("Usage", "free")  # noqa: PYI024


@pytest.fixture
def three(tmp_path):
    return [tmp_path / name for name in "abc"]


def test_round_robin_goes_around_for_all_backends_of_the_process(three):
    directories = LocalDirectories(three)
    assert [directories.choose() for _ in range(5)] == [*three, *three[:2]]


def test_random_gives_the_same_choices_for_the_same_seed(three):
    def choices(seed):
        directories = LocalDirectories(three, strategy=Strategy.RANDOM, seed=seed)
        return [directories.choose() for _ in range(20)]

    assert choices(1) == choices(1)
    assert choices(1) != choices(2)
    assert set(choices(1)) == set(three)


def test_least_used_is_the_one_with_the_most_free_bytes_at_that_moment(three, monkeypatch):
    free = dict(zip(three, (10, 30, 20), strict=True))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(free[path]))
    directories = LocalDirectories(three, strategy=Strategy.LEAST_USED)
    assert directories.choose() == three[1]
    free[three[1]] = 5
    assert directories.choose() == three[2]


def test_an_unusable_directory_is_skipped_with_a_warning(tmp_path, three, caplog):
    file = tmp_path / "file"
    file.write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        directories = LocalDirectories([file, three[0]])
    assert directories.usable == [three[0]]
    assert f"{file}: File exists" in caplog.text


def test_probing_leaves_nothing_behind(three):
    LocalDirectories(three)
    assert [list(path.iterdir()) for path in three] == [[], [], []]


def test_none_usable_is_refused_naming_each_problem(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"")
    with pytest.raises(Rejected, match="not an absolute path") as refused:
        LocalDirectories([file, tmp_path.relative_to("/")])
    assert str(file) in refused.value.what


def test_no_directory_at_all_is_refused():
    with pytest.raises(Rejected, match="none is given"):
        LocalDirectories([])
