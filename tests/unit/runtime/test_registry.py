"""Jobs that run on this machine."""

import json
import multiprocessing
import os
import stat

import pytest

from penstock.core.errors import Rejected
from penstock.runtime.registry import (
    RunningJob,
    find_job,
    jobs_folder,
    register,
    running_jobs,
)


@pytest.fixture(autouse=True)
def state_home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def job(name="wordcount", url="http://localhost:8081"):
    return RunningJob(name, os.getpid(), url, "secret", "state", "streamjob.yaml", 1)


def test_a_running_job_is_listed_as_long_as_it_runs():
    with register("wordcount", "state") as registration:
        assert running_jobs() == []
        registration.publish(job())
        assert running_jobs() == [job()]
    assert running_jobs() == []
    assert list(jobs_folder().iterdir()) == []


def test_its_file_is_its_owners_alone():
    with register("wordcount", "state") as registration:
        registration.publish(job())
        assert stat.S_IMODE(registration.path.stat().st_mode) == 0o600
        assert json.loads(registration.path.read_text())["token"] == "secret"


def test_a_second_run_of_the_same_job_is_refused_and_told_where_the_first_is():
    with register("wordcount", "state") as registration:
        registration.publish(job())
        already = pytest.raises(Rejected, match="wordcount runs on this machine already")
        with already as e, register("wordcount", "state"):
            pass
        assert "http://localhost:8081" in e.value.where
        with register("wordcount", "elsewhere"):
            pass


def test_the_file_of_a_killed_run_neither_shows_nor_hinders():
    def run_and_die():
        with register("wordcount", "state") as registration:
            registration.publish(job())
            os._exit(9)

    process = multiprocessing.get_context("fork").Process(target=run_and_die)
    process.start()
    process.join()
    assert len(list(jobs_folder().iterdir())) == 1
    assert running_jobs() == []
    with register("wordcount", "state"):
        pass


def test_a_shorter_publication_leaves_nothing_of_a_longer_one():
    with register("wordcount", "state") as registration:
        registration.publish(job(url="http://localhost:8081/a/long/one"))
        registration.publish(job())
        assert running_jobs() == [job()]


def test_without_a_name_the_only_job_is_meant():
    with register("a", "state") as one:
        one.publish(job("a"))
        assert find_job(None).name == "a"
        with register("b", "state") as other:
            other.publish(job("b"))
            assert find_job("b").name == "b"
            with pytest.raises(Rejected, match="2 jobs run") as e:
                find_job(None)
            assert e.value.where == "a, b"
            with pytest.raises(Rejected, match="no job c") as e:
                find_job("c")
            assert e.value.fix == "running: a, b"
    with pytest.raises(Rejected, match="no job runs on this machine"):
        find_job(None)
