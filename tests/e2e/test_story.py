"""What happened to a job is told where a person looks, in order."""

from collections.abc import Callable

from tests.e2e.support_job import Job

STORIES = {
    "Upgrade": ["Began", "Stopping", "Replacing", "Starting", "Stabilizing", "Stable"],
    "Rescale": ["Began", "Moving", "RemovingWorkers", "Done"],
    "Restore": ["Began", "Replacing", "Starting", "Done"],
}


def test_describe_tells_the_last_upgrade_rescale_and_restore_in_order(
    new_job: Callable[..., Job],
) -> None:
    job = new_job(rescale={"cooldown": "0s"})
    old = job.start()
    job.annotate(savepoint="before")
    path = job.wait_for_receipt("savepoint", "before")["path"]
    job.apply(parameters={"version": "2"})
    job.wait_for_revision(old["revision"])
    job.scale(3)
    job.wait_for_parallelism(3)
    # What came after the savepoint is written twice; this test looks at no output.
    job.apply(restore={"from": path, "allowOlder": True})
    job.wait_for(lambda s: s.get("restoredFrom") == path and not s.get("move"), "it is restored")

    said = job.namespace.run("describe", "streamjob", job.name)
    reasons = _reasons(said)
    moves = [r for r in reasons if r.startswith(tuple(STORIES))]
    assert moves == [f"{kind}{step}" for kind, steps in STORIES.items() for step in steps], said
    history = [(entry["move"], entry["outcome"]) for entry in job.status()["history"]]
    assert history == [("Start", "Done"), *((k, steps[-1]) for k, steps in STORIES.items())]
    for told in ("key groups moved", "fetched", "paused for", path):
        assert told in said.partition("Events:")[2]


def _reasons(described: str) -> list[str]:
    """Those of the Events, as they stand."""
    rows = described.partition("Events:")[2].splitlines()
    return [row.split()[1] for row in rows if row.split()[:1] in (["Normal"], ["Warning"])]
