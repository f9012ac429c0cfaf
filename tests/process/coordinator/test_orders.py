"""What the Kubernetes operator orders, over REST, of a coordinator process with a real store."""

import asyncio

import pytest
from aiohttp.test_utils import TestClient, TestServer

from penstock.core import paths
from penstock.network import frames
from penstock.runtime.coordinator import _Service
from penstock.runtime.coordinator_config import CoordinatorConfig
from penstock.runtime.program import load_program
from penstock.spec.orders import JobStatus, restore_id_of
from penstock.spec.parts.snapshots import Restore

from .conftest import JOB, TOKEN, ScriptedWorker

pytestmark = [pytest.mark.process, pytest.mark.usefixtures("seldom")]


@pytest.fixture
def second(coordinator, job_folder):
    scripted = ScriptedWorker(1, job_folder)
    scripted.join(coordinator.port)
    yield scripted
    scripted.leave()


@pytest.fixture
def running(coordinator, worker):
    """With one checkpoint."""
    coordinator.order_start()
    coordinator.wait_for_phase("Running")
    order(coordinator, "checkpoints", "first")
    return coordinator


def order(coordinator, kind: str, request_id: str, **fields):
    body = {"requestId": request_id, **fields}
    code, answer = coordinator.post(f"/penstock/v1/{kind}?wait=20", body)
    assert code in (200, 400, 409), (code, answer, coordinator.log)
    return answer


def status(coordinator) -> JobStatus:
    return JobStatus.model_validate(coordinator.status())


def end(coordinator, kind: str, request_id: str, **fields):
    answer = order(coordinator, kind, request_id, **fields)
    assert answer["phase"] == "Done", coordinator.log
    return answer


def named(store, prefix: str) -> list[str]:
    """Manifests and what they name: of all that a scripted worker uploads, its counts."""
    found = [info.path for info in store.list(prefix)]
    return [path for path in found if "counts" in path or path.endswith(paths.METADATA)]


# ── before the log was read ────────────────────────────────────────────────────────────────────


def test_nothing_is_told_or_taken_before_the_log_was_read(job_folder):
    program = load_program(job_folder / "streamjob.yaml", job_folder)
    config = CoordinatorConfig(
        JOB, TOKEN, job_folder, "state/checkpoints", "state/savepoints", "local/test", "r1"
    )

    async def ask() -> None:
        service = _Service(config, program)  # its log is read by `run`, which is not called
        async with TestClient(TestServer(service._app())) as client:
            head = {"Authorization": f"Bearer {TOKEN}"}
            body = {"requestId": "a", "revision": "r1", "parallelism": 1}
            for response in (
                await client.get("/penstock/v1/status"),
                await client.get("/penstock/v1/requests/a"),
                await client.post("/penstock/v1/start", json=body, headers=head),
            ):
                assert response.status == 503
                assert response.headers["Retry-After"] == "1"
                assert "reads the job's log" in (await response.json())["error"]["what"]
            for probed in ("/", "/metrics"):
                assert (await client.get(probed)).status == 200, "it lives"

    asyncio.run(ask())


# ── start ──────────────────────────────────────────────────────────────────────────────────────


def test_a_standing_restore_acts_once_and_its_snapshot_may_go_then(running):
    end(running, "savepoints", "sp")
    (found,) = [r for r in running.status()["requests"] if r["requestId"] == "sp"]
    restore = {"from": found["path"]}
    end(running, "cancel", "cancel-1")
    assert running.order_start("start-2", restore=restore)[1]["phase"] == "Done", running.log
    assert status(running).restore_id == restore_id_of(Restore.model_validate(restore))
    assert "savepoint-" in running.newest_entry().attempt.restored_from.path
    end(running, "checkpoints", "own")
    newest = status(running).next_restore
    end(running, "cancel", "cancel-2")
    end(running, "dispose", "gone", path=found["path"])
    assert running.order_start("start-3", restore=restore)[1]["phase"] == "Done", running.log
    assert newest.endswith(f"chk-{running.newest_entry().attempt.restored_from.id}")


def test_a_rollback_goes_back_to_before_a_held_version(running, worker):
    stop = end(running, "stop", "stop-1")
    running.kill()
    running.revision = "r2"
    running.start()
    worker.moved_to(running.port)
    assert running.order_start("up", hold=3)[1]["phase"] == "Done", running.log
    running.wait_for_phase("Running")
    end(running, "checkpoints", "held")
    hold = status(running).hold
    assert (hold.stable, hold.completed) == (3, 1)
    assert hold.path.endswith(f"chk-{hold.after}")
    end(running, "cancel", "away", retain=True)
    running.kill()
    running.revision = "r1"
    running.start()
    worker.moved_to(running.port)
    assert running.order_start("back", origin="Hold")[1]["phase"] == "Done", running.log
    entry = running.newest_entry()
    assert (entry.hold, entry.attempt.revision) == (None, "r1")
    assert status(running).next_restore == hold.path
    assert max(worker.committed) <= hold.after
    assert stop["path"]
    code, answer = running.order_start("back-again", origin="Hold", after=entry.seq)
    assert (code, answer["error"]) == (409, "the job runs already")


def test_state_that_nobody_takes_is_left_behind_by_a_start_that_says_so(running, worker):
    end(running, "stop", "stop-1")
    running.kill()
    running.revision, job = "r2", running.folder / "counting_job.py"
    job.write_text(job.read_text().replace('uid="counts"', 'uid="others"'))
    running.start()
    worker.moved_to(running.port)
    _, answer = running.order_start("up")
    assert "operator counts has state" in answer["error"]["what"]
    assert "allowNonRestoredState" in answer["error"]["fix"]
    _, answer = running.order_start("up-2", allowNonRestoredState=True)
    assert answer["phase"] == "Done", running.log


@pytest.mark.usefixtures("narrow", "worker")
def test_a_start_without_a_max_parallelism_has_the_manifests(coordinator):
    assert coordinator.order_start()[1]["phase"] == "Done", coordinator.log
    assert coordinator.status()["maxParallelism"] == 32


def test_checkpoints_are_deleted_by_a_cancel_that_says_so(running):
    end(running, "cancel", "cancel-1", retain=False)
    assert named(running.storage.checkpoints, f"{JOB}/chk-") == []
    assert running.status()["phase"] == "Cancelled"
    assert running.status()["nextRestore"] is None


# ── rescale ────────────────────────────────────────────────────────────────────────────────────


def test_a_rescale_is_done_when_its_first_checkpoint_is_and_known_to_the_next_coordinator(
    running, worker, second, wait
):
    wait(lambda: len(running.status()["workers"]) == 2, "the second worker")
    answer = end(running, "rescale", "up", parallelism=2)
    found = status(running)
    assert (found.parallelism, found.attempt, found.restarts) == (2, 2, 0)
    moved = found.rescale
    assert (moved.from_parallelism, moved.to_parallelism, moved.key_groups_moved) == (1, 2, 64)
    assert [t.stop for t in worker.of(frames.Trigger)][-2:] == [True, False]
    running.kill()
    running.start()
    assert order(running, "rescale", "up", parallelism=2) == answer
    assert status(running).rescale == moved


def test_a_rescale_that_cannot_be_is_told_at_once_and_the_job_runs_on(running):
    answer = order(running, "rescale", "up", parallelism=3)
    assert answer["phase"] == "Failed"
    assert "these are not registered: 1, 2" in answer["error"]
    assert (status(running).phase, status(running).attempt) == ("Running", 1)


def test_a_rescale_whose_new_worker_breaks_goes_back(running, worker, second, wait):
    wait(lambda: len(running.status()["workers"]) == 2, "the second worker")
    second.stalls = True  # of the new attempt it acknowledges nothing, then it is gone
    running.post("/penstock/v1/rescale", {"requestId": "up", "parallelism": 2})
    wait(lambda: running.status()["attempt"] == 2, "the attempt at two")
    wait(lambda: running.status()["phase"] == "Running", "its records")
    second.leave()
    answer = order(running, "rescale", "up", parallelism=2)
    assert answer["phase"] == "Failed"
    assert "worker 1 left" in answer["error"]
    running.wait_for_phase("Running")
    assert (status(running).parallelism, status(running).attempt) == (1, 3)
    assert status(running).rescale is None


# ── settings ───────────────────────────────────────────────────────────────────────────────────


def test_settings_are_in_force_at_once_and_after_a_kill(running, worker, wait):
    live = {"checkpoints": {"interval": "100ms"}, "worker": {"progressTimeout": "30s"}}
    end(running, "settings", "faster", settings=live)
    found = status(running)
    assert (found.settings, found.attempt) == (live, 1)
    wait(lambda: status(running).completed_in_attempt >= 3, "checkpoints of the interval")
    worker.stuck_ms = 5_000  # longer than the manifest's progressTimeout
    running.kill()
    running.start()
    worker.moved_to(running.port)
    running.wait_for_phase("Running")
    wait(lambda: status(running).completed_in_attempt >= 3, "checkpoints of the interval")
    assert status(running).settings == live
    assert status(running).attempt == 2, running.log


def test_wrong_settings_are_refused_naming_the_field(running):
    code, answer = running.post(
        "/penstock/v1/settings?wait=20",
        {"requestId": "wrong", "settings": {"checkpoints": {"mode": "AtLeastOnce"}}},
    )
    assert code == 400
    assert "spec.checkpoints.mode cannot change" in answer["error"]["what"]
    assert status(running).settings == {}


# ── dispose ────────────────────────────────────────────────────────────────────────────────────


def test_a_savepoint_is_deleted_by_name_path_or_url(running, job_folder):
    for n, name in enumerate(("{0}", "state/savepoints/{0}", "{1}", "{1}/_metadata")):
        path = end(running, "savepoints", f"sp-{n}")["path"]
        folder = path.rpartition("/")[2]
        assert end(running, "dispose", f"d-{n}", path=name.format(folder, path))["path"] == path
        assert named(running.storage.savepoints, folder) == []
        assert end(running, "dispose", f"again-{n}", path=path)["path"] == path


def test_what_is_needed_or_not_a_savepoint_is_left(running):
    stop = end(running, "stop", "stop-1")
    answer = order(running, "dispose", "needed", path=stop["path"])
    assert "still needed" in answer["error"]
    for path in (f"state/checkpoints/{JOB}/chk-1", f"file:///elsewhere/{JOB}"):
        code, answer = running.post(
            "/penstock/v1/dispose?wait=20", {"requestId": path, "path": path}
        )
        assert code == 400, answer
        assert "is no folder of the job's savepoints" in answer["error"]["what"]
    assert len(named(running.storage.savepoints, paths.savepoint_folder(JOB, "stop-1"))) == 2


# ── status ─────────────────────────────────────────────────────────────────────────────────────


def test_the_last_checkpoint_is_known_to_the_next_coordinator(running):
    before = status(running).last_checkpoint
    running.kill()
    running.start()
    found = status(running)
    assert (found.last_checkpoint.id, found.last_checkpoint.path) == (before.id, before.path)
    assert found.last_checkpoint.size_bytes == before.size_bytes
    assert found.next_restore == before.path
    assert found.holds_not == ()
