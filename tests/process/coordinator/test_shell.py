"""The coordinator's process against a worker that speaks the real frames over real sockets."""

import json
import signal

import pytest

from penstock.core.errors import Corrupt, Rejected
from penstock.core.failure import Failure
from penstock.core.log import EndKind
from penstock.network import frames
from penstock.runtime import snapshot_files

pytestmark = pytest.mark.process


def completed(coordinator):
    last = coordinator.status()["lastCheckpoint"]
    return last["id"] if last else 0


def test_a_started_job_runs_and_completes_checkpoints_that_its_worker_commits(
    coordinator, worker, wait
):
    assert coordinator.order_start()[1]["phase"] == "Done"
    wait(lambda: completed(coordinator) >= 3, "three checkpoints")
    status = coordinator.wait_for_phase("Running")
    assert (status["attempt"], status["parallelism"], status["restarts"]) == (1, 1, 0)
    wait(lambda: 3 in worker.committed, "commit of 3")
    entry = coordinator.newest_entry()
    assert len(entry.retained) == 2
    assert all(coordinator.storage.checkpoints.length(ref.path) for ref in entry.retained)


def test_run_tells_each_worker_the_address_of_every_worker(coordinator, worker, wait):
    coordinator.order_start()
    (run,) = wait(lambda: worker.of(frames.Run), "Run")
    assert run.addresses == {0: ("127.0.0.1", 1000)}


def test_killed_in_the_middle_of_a_job_it_goes_on_from_the_newest_entry_alone(
    coordinator, worker, wait
):
    coordinator.order_start()
    wait(lambda: completed(coordinator) >= 2, "two checkpoints")
    coordinator.kill()
    before = coordinator.newest_entry()
    coordinator.start()
    worker.moved_to(coordinator.port)
    wait(lambda: len(worker.of(frames.Prepare)) == 2, "the next attempt")
    prepared = worker.of(frames.Prepare)[-1]
    newest = max(before.retained, key=lambda ref: ref.id)
    assert prepared.attempt == 2
    assert prepared.committed == newest.id
    (source,) = prepared.restore["counts"][0].keyed
    assert source.handle.files[0].length == len(b"state")
    wait(lambda: completed(coordinator) > newest.id, "a checkpoint above all before")
    entry = coordinator.newest_entry()
    assert entry.attempt.restored_from == newest


def test_a_coordinator_of_another_revision_waits_for_an_order(coordinator, worker, wait):
    coordinator.order_start()
    wait(lambda: completed(coordinator) >= 1, "a checkpoint")
    coordinator.kill()
    coordinator.revision = "r2"
    coordinator.start()
    worker.moved_to(coordinator.port)
    wait(lambda: coordinator.status()["workers"], "the worker")
    assert coordinator.status()["phase"] == "Waiting"
    assert coordinator.order_start("start-2")[1]["phase"] == "Done"
    assert coordinator.newest_entry().attempt.revision == "r2"


def test_an_order_given_after_an_outdated_entry_is_refused_with_the_reason(coordinator, worker):
    code, answer = coordinator.order_start(after=7)
    assert code == 400
    assert "entry 7" in answer["error"]["what"]
    assert coordinator.status()["phase"] == "Waiting"


@pytest.mark.usefixtures("seldom")
def test_a_stop_makes_a_savepoint_and_is_still_known_after_a_kill(coordinator, worker, wait):
    coordinator.order_start()
    coordinator.wait_for_phase("Running")
    code, answer = coordinator.post("/penstock/v1/stop?wait=20", {"requestId": "stop-1"})
    assert (code, answer["phase"]) == (200, "Done"), coordinator.log
    entry = coordinator.newest_entry()
    assert entry.end is not None
    assert (entry.end.kind, entry.end.committed) == (EndKind.STOPPED, True)
    found = snapshot_files.resolve(coordinator.storage, answer["path"])
    assert found is not None
    assert found.manifest.request_id == "stop-1"
    coordinator.kill()
    coordinator.start()
    assert coordinator.status()["phase"] == "Stopped"
    assert coordinator.post("/penstock/v1/stop?wait=20", {"requestId": "stop-1"})[1] == answer


@pytest.mark.usefixtures("seldom")
def test_after_a_stop_the_next_start_restores_the_savepoint(coordinator, worker, wait):
    coordinator.order_start()
    coordinator.wait_for_phase("Running")
    coordinator.post("/penstock/v1/stop?wait=20", {"requestId": "stop-1"})
    assert coordinator.order_start("start-2")[1]["phase"] == "Done", coordinator.log
    prepared = wait(lambda: worker.of(frames.Prepare)[1:], "the second attempt")[-1]
    (file,) = prepared.restore["counts"][0].keyed[0].handle.files
    assert file.path.startswith(coordinator.storage.savepoints.url)


@pytest.mark.usefixtures("seldom")
def test_a_savepoint_is_complete_when_it_is_answered_and_the_job_runs_on(coordinator, worker):
    coordinator.order_start()
    coordinator.wait_for_phase("Running")
    answer = coordinator.post("/penstock/v1/savepoints?wait=20", {"requestId": "save-1"})[1]
    assert answer["phase"] == "Done", coordinator.log
    assert snapshot_files.resolve(coordinator.storage, answer["path"]) is not None
    status = coordinator.status()
    assert status["phase"] == "Running"
    assert status["lastSavepoint"]["path"] == answer["path"]
    coordinator.kill()
    coordinator.start()
    again = coordinator.post("/penstock/v1/savepoints?wait=20", {"requestId": "save-1"})[1]
    assert again == answer


@pytest.mark.usefixtures("seldom")
def test_a_worker_that_leaves_fails_the_attempt_and_the_next_one_follows(coordinator, worker, wait):
    coordinator.order_start()
    coordinator.wait_for_phase("Running")
    worker._socket.close()
    wait(lambda: coordinator.status()["attempt"] == 2, "attempt 2")
    status = coordinator.wait_for_phase("Running")
    assert status["restarts"] == 1
    assert "worker 0 left" in status["lastError"]["what"]


@pytest.mark.usefixtures("seldom")
def test_a_worker_that_is_silent_too_long_has_left(coordinator, worker, wait):
    coordinator.order_start()
    coordinator.wait_for_phase("Running")
    worker.mute = True
    error = wait(lambda: coordinator.status()["lastError"], "the failure")
    assert error["what"] == "worker 0 left: nothing heard of it for 2 s"


@pytest.mark.usefixtures("seldom")
def test_a_worker_without_progress_fails_its_attempt(coordinator, worker, wait):
    coordinator.order_start()
    coordinator.wait_for_phase("Running")
    worker.stuck_ms = 5000
    wait(lambda: len(worker.of(frames.Prepare)) >= 2, "the next attempt")
    worker.stuck_ms = 0
    error = wait(lambda: coordinator.status()["lastError"], "the failure")
    assert error["what"] == "worker 0 made no progress for 5 s"


@pytest.mark.usefixtures("seldom")
def test_an_exception_of_the_author_is_told_with_its_operator_record_and_lines(
    coordinator, worker, wait
):
    coordinator.order_start()
    coordinator.wait_for_phase("Running")
    worker.fail(
        frames.Failed(
            1,
            Failure("ValueError: no", operator="counts", subtask=0, record="'x'", lines=("line",)),
        )
    )
    error = wait(lambda: coordinator.status()["lastError"], "the failure")
    assert (error["operator"], error["record"], error["lines"]) == ("counts", "'x'", ["line"])


@pytest.mark.usefixtures("seldom")
def test_a_job_whose_input_ended_finishes_with_a_last_checkpoint(coordinator, worker, wait):
    coordinator.order_start()
    coordinator.wait_for_phase("Running")
    worker.finish(worker.of(frames.Prepare)[-1])
    status = coordinator.wait_for_phase("Finished")
    assert status["lastCheckpoint"]["id"] in worker.committed
    entry = coordinator.newest_entry()
    assert entry.end is not None
    assert (entry.end.kind, entry.end.committed) == (EndKind.FINISHED, True)


@pytest.mark.usefixtures("seldom")
def test_a_cancelled_job_says_so_for_ever(coordinator, worker):
    coordinator.order_start()
    coordinator.wait_for_phase("Running")
    answer = coordinator.post("/penstock/v1/cancel?wait=20", {"requestId": "cancel-1"})[1]
    assert answer["phase"] == "Done", coordinator.log
    coordinator.kill()
    coordinator.start()
    assert coordinator.status()["phase"] == "Cancelled"


def test_a_log_of_another_owner_is_left_alone(coordinator, worker, wait):
    coordinator.order_start()
    wait(lambda: completed(coordinator) >= 1, "a checkpoint")
    coordinator.kill()
    before = coordinator.newest_entry()
    coordinator.owner = "local/other"
    coordinator.launch()
    assert coordinator.process.wait(20) == 5
    error = json.loads((coordinator.folder / "ports.json").read_text())["error"]
    assert "the job's folder belongs to local/test" in error["what"]
    assert coordinator.newest_entry() == before


def test_a_paused_coordinator_that_was_overtaken_stands_down_when_it_wakes(
    coordinator, worker, wait
):
    coordinator.order_start()
    wait(lambda: completed(coordinator) >= 1, "a checkpoint")
    paused = coordinator.process
    paused.send_signal(signal.SIGSTOP)
    coordinator.start()
    worker.moved_to(coordinator.port)
    worker._socket.close()
    wait(lambda: coordinator.status()["attempt"] == 2, "the second one's attempt")
    paused.send_signal(signal.SIGCONT)
    assert paused.wait(20) == 5
    assert coordinator.wait_for_phase("Running")["attempt"] == 2


# ── snapshots as they lie there ─────────────────────────────────────────────────────────────────


@pytest.fixture
def with_checkpoints(coordinator, worker, wait):
    coordinator.order_start()
    wait(lambda: completed(coordinator) >= 3, "three checkpoints")
    worker.stalls = True
    coordinator.kill()
    return coordinator


def test_latest_is_the_newest_that_the_log_retains(with_checkpoints):
    newest = max(with_checkpoints.newest_entry().retained, key=lambda ref: ref.id)
    assert snapshot_files.resolve(with_checkpoints.storage, "latest").ref == newest
    assert snapshot_files.resolve(with_checkpoints.storage, f"chk-{newest.id}").ref == newest
    path = str(with_checkpoints.folder / "state/checkpoints/counting" / f"chk-{newest.id}")
    assert snapshot_files.resolve(with_checkpoints.storage, path).ref == newest
    assert snapshot_files.resolve(with_checkpoints.storage, "none") is None


def test_a_time_means_the_newest_snapshot_at_or_before_it(with_checkpoints):
    older, newer = sorted(with_checkpoints.newest_entry().retained, key=lambda ref: ref.id)
    at_ms = snapshot_files.read_snapshot(with_checkpoints.storage, newer).manifest.at_ms
    of = lambda ms: f"{__import__('datetime').datetime.fromtimestamp(ms / 1000).isoformat()}"  # noqa: E731
    assert snapshot_files.resolve(with_checkpoints.storage, of(at_ms)).ref == newer
    assert snapshot_files.resolve(with_checkpoints.storage, of(at_ms - 1)).ref == older
    with pytest.raises(Rejected, match="at or before 2020"):
        snapshot_files.resolve(with_checkpoints.storage, "2020-01-01T00:00:00Z")


def test_a_time_at_which_the_newest_is_damaged_is_refused_with_the_next_older_one(with_checkpoints):
    older, newer = sorted(with_checkpoints.newest_entry().retained, key=lambda ref: ref.id)
    found = snapshot_files.read_snapshot(with_checkpoints.storage, newer)
    (file,) = found.manifest.files()
    with_checkpoints.storage.checkpoints.delete([f"counting/{file.path}"])
    with pytest.raises(Corrupt, match=f"chk-{newer.id} is damaged: {file.path} is missing") as e:
        snapshot_files.resolve(with_checkpoints.storage, "2999-01-01T00:00:00Z")
    assert f"--restore chk-{older.id}" in e.value.fix


def test_a_damaged_snapshot_is_told_with_its_missing_file_and_the_next_older_one(
    with_checkpoints,
):
    older, newer = sorted(with_checkpoints.newest_entry().retained, key=lambda ref: ref.id)
    storage = with_checkpoints.storage
    found = snapshot_files.read_snapshot(storage, newer)
    (file,) = found.manifest.files()
    storage.checkpoints.delete([f"counting/{file.path}"])
    with pytest.raises(Corrupt, match=f"chk-{newer.id} is damaged: {file.path} is missing") as e:
        snapshot_files.resolve(storage, "latest")
    assert f"--restore chk-{older.id}" in e.value.fix
    storage.checkpoints.put(f"counting/{file.path}", b"longer than it was")
    with pytest.raises(Corrupt, match="has 18 bytes, not 5"):
        snapshot_files.resolve(storage, "latest")


def test_a_manifest_with_another_content_than_the_log_names_is_damaged(with_checkpoints):
    newest = max(with_checkpoints.newest_entry().retained, key=lambda ref: ref.id)
    store = with_checkpoints.storage.checkpoints
    store.put(newest.path, store.get(newest.path) + b" ")
    with pytest.raises(Corrupt, match="not the one that the job's log names"):
        snapshot_files.resolve(with_checkpoints.storage, "latest")


def test_a_checkpoint_that_the_log_does_not_retain_is_refused(with_checkpoints):
    store = with_checkpoints.storage.checkpoints
    newest = max(with_checkpoints.newest_entry().retained, key=lambda ref: ref.id)
    store.put("counting/chk-9999/_metadata", store.get(newest.path))
    orphan = str(with_checkpoints.folder / "state/checkpoints/counting/chk-9999")
    with pytest.raises(Rejected, match="not kept by the log of counting"):
        snapshot_files.resolve(with_checkpoints.storage, orphan)
    with pytest.raises(Rejected, match=f"kept are: chk-{newest.id}"):
        snapshot_files.resolve(with_checkpoints.storage, "chk-9999")


def test_the_status_is_json_that_its_model_reads(coordinator):
    from penstock.spec.orders import JobStatus

    assert JobStatus.model_validate_json(json.dumps(coordinator.status())).job_id == "counting"
