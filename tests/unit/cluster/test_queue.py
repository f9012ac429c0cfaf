"""Threads take turns: a turn that raises ends no thread, and the same job never runs twice at once."""

import io
import json
import threading
import time
from collections import Counter
from datetime import timedelta

from penstock.core.errors import Retryable
from penstock_operator.cluster.log import make_log
from penstock_operator.cluster.loop.agenda import Agenda
from penstock_operator.cluster.loop.queue import WorkQueue

PATIENCE_S = 20


def queue_of(turn, *, threads=4, log=None):
    return WorkQueue(Agenda(lambda: 0.5), turn, threads=threads, log=make_log(log or io.StringIO()))


def wait_for(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_turns_of_one_job_never_overlap():
    running, overlaps, turns = Counter(), [], Counter()
    lock = threading.Lock()

    def turn(key):
        with lock:
            running[key] += 1
            overlaps.extend([key] if running[key] > 1 else [])
        time.sleep(0.002)
        with lock:
            running[key] -= 1
            turns[key] += 1
        return timedelta(milliseconds=1)

    queue = queue_of(turn, threads=8)
    queue.start()
    wait_for(lambda: [queue.add(k) for k in "ab"] and min(turns["a"], turns["b"]) >= 20)
    queue.stop(PATIENCE_S)
    assert overlaps == []


def test_a_turn_that_raises_is_logged_and_comes_again():
    failures = [ValueError("what a mistake"), Retryable("the API server does not answer")]
    done = threading.Event()

    def turn(key):
        if failures:
            raise failures.pop(0)
        done.set()

    log = io.StringIO()
    queue = queue_of(turn, threads=1, log=log)
    queue.start()
    queue.add("ns/a")
    assert done.wait(PATIENCE_S)
    queue.stop(PATIENCE_S)
    mistake, retryable = (json.loads(line) for line in log.getvalue().splitlines())
    assert mistake["level"] == "error"
    assert "ValueError: what a mistake" in mistake["exception"]
    assert retryable["level"] == "warning"
    assert retryable["error"] == "the API server does not answer"
    assert "exception" not in retryable


def test_a_stopped_queue_begins_no_turn():
    taken = []
    queue = queue_of(taken.append)
    queue.start()
    queue.stop(PATIENCE_S)
    queue.add("a")
    time.sleep(0.3)
    assert taken == []


def test_the_age_of_the_loop_grows_only_while_no_thread_comes_round():
    stuck, begun = threading.Event(), threading.Event()

    def turn(key):
        begun.set()
        stuck.wait(PATIENCE_S)

    queue = queue_of(turn, threads=1)
    queue.start()
    queue.add("a")
    assert begun.wait(PATIENCE_S)
    wait_for(lambda: queue.age_s() > 0.5)
    stuck.set()
    wait_for(lambda: queue.age_s() < 0.5)
    queue.stop(PATIENCE_S)
