"""What is kept, what goes, and what a sweep calls an orphan."""

import pytest

from penstock.checkpoint import recovery, retention
from penstock.checkpoint.events import CancelOrdered
from penstock.checkpoint.retention import Listed
from penstock.core.errors import Corrupt
from penstock.core.ids import CheckpointId, JobId
from penstock.core.log import Hold, SnapshotRef

JOB = JobId("wordcount")


def ref(n: int) -> SnapshotRef:
    return SnapshotRef(CheckpointId(n), f"wordcount/chk-{n}/_metadata", "")


def test_the_newest_are_kept():
    kept, dropped = retention.retain((ref(1), ref(2)), ref(3), count=2, hold=None)
    assert (kept, dropped) == ((ref(2), ref(3)), (ref(1),))


def test_what_a_hold_goes_back_to_is_kept_beyond_the_count():
    hold = Hold(ref(1), CheckpointId(1), 2)
    kept, dropped = retention.retain((ref(1), ref(2)), ref(3), count=1, hold=hold)
    assert (kept, dropped) == ((ref(1), ref(3)), (ref(2),))


def test_without_a_manifest_only_the_manifest_is_deleted():
    assert retention.files_to_delete(JOB, ref(1), None, in_use=set()) == (ref(1).path,)


def sweep(a, *, now_ms: int = 100_000, grace_ms: int = 1_000, **modified_ms: int):
    read = a.store.drive(recovery.read_job(JOB))
    listed = [
        Listed(path, len(data), modified_ms.get(path.rpartition("/")[2], 0))
        for path, data in a.store.objects.items()
        if path.startswith("wordcount/")
    ]
    return retention.sweep(
        listed, read.newest, read.manifests, job=JOB, now_ms=now_ms, grace_ms=grace_ms
    )


def names(found) -> set[str]:
    return {item.path.removeprefix("wordcount/") for item in found}


def test_a_sweep_beside_a_live_job_leaves_its_files_alone(new):
    a = new().run()
    a.checkpoint()
    a.store.objects["wordcount/shared/1-2-x"] = b"uploading"
    a.store.objects["wordcount/chk-2/_metadata"] = b"being committed"
    swept = sweep(a)
    assert names(swept.live) == {"shared/1-2-x", "chk-2/_metadata"}
    assert swept.orphans == ()
    assert {"chk-1/_metadata", "chk-1/1-1-0"} < names(swept.referenced)


def test_a_sweep_finds_what_older_attempts_left_once_it_is_old_enough(new):
    a = new().run()
    a.checkpoint()
    a.store.objects["wordcount/shared/1-2-old"] = b"left"
    a.store.objects["wordcount/shared/1-2-young"] = b"left"
    a.store.objects["wordcount/chk-2/_metadata"] = b"without an entry"
    a.fail()
    a.wait(1_000)
    swept = sweep(a, **{"1-2-young": 99_999})
    assert names(swept.orphans) == {"shared/1-2-old", "chk-2/_metadata"}
    assert names(swept.young) == {"shared/1-2-young"}
    assert swept.orphan_bytes == len(b"left") + len(b"without an entry")


def test_after_a_committed_end_everything_that_is_not_referenced_is_an_orphan(new):
    a = new().run()
    a.store.objects["wordcount/shared/1-2-x"] = b"left"
    a.checkpoint()
    a.committed()
    a.say(CancelOrdered("cancel"))
    assert names(sweep(a).orphans) == {"shared/1-2-x"}


def test_nothing_is_classified_while_a_manifest_cannot_be_read(new):
    a = new().run()
    a.checkpoint()
    del a.store.objects["wordcount/chk-1/_metadata"]
    with pytest.raises(Corrupt, match="nobody can tell"):
        sweep(a)
