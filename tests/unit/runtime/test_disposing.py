"""Deleting all of a job's checkpoints while somebody else may have started it."""

from dataclasses import replace
from pathlib import Path

from penstock.checkpoint import log
from penstock.core.ids import AttemptNumber, CheckpointId, JobId
from penstock.core.log import Attempt, End, EndKind, EntryKind, SnapshotRef
from penstock.runtime.disposing import dispose_checkpoints
from penstock.runtime.job_storage import JobStorage
from penstock.storage.memory import MemoryStore

JOB = JobId("counting")
ATTEMPT = Attempt(AttemptNumber(1), "1", 1, 128, (0,), CheckpointId(1))
META = f"{JOB}/chk-1/_metadata"


class StartedMeanwhile(MemoryStore):
    """A store in which a coordinator goes on as soon as the newest entry was read by its path."""

    meanwhile = staticmethod(lambda: None)

    def get(self, path):
        found = super().get(path)
        then, self.meanwhile = self.meanwhile, lambda: None
        then()
        return found


def test_what_a_coordinator_writes_that_started_meanwhile_stays(tmp_path: Path):
    store = StartedMeanwhile(lambda: 0)
    storage = JobStorage(JOB, store, store, tmp_path)

    def append(entry):
        assert isinstance(storage.run(log.append(JOB, entry)), log.Won)
        return entry

    def opened(previous, attempt, name):
        settings = {"nonce": name, "at_ms": 0, "owner": "me", "hold": None, "settings": {}}
        return append(log.opened(previous, attempt=attempt, request_id=name, **settings))

    first = opened(None, ATTEMPT, "a")
    end = End(EndKind.CANCELLED, committed=True)
    fields = {"request_id": "b", "retained": (), "dropping": (), "hold": None}
    ended = append(log.ended(first, end, nonce="b", at_ms=0, **fields))

    def start_again():
        again = opened(ended, replace(ATTEMPT, number=AttemptNumber(2)), "c")
        store.put(META, b"manifest")
        retained = (SnapshotRef(CheckpointId(1), META, ""),)
        append(log.completed(again, nonce="d", at_ms=0, retained=retained, dropping=()))

    store.meanwhile = start_again
    dispose_checkpoints(storage, owner="me", adopt=False, nonce="e", at_ms=1)
    newest = storage.run(log.read_newest(JOB))
    assert (newest.seq, newest.kind) == (4, EntryKind.COMPLETED)
    assert store.get(META) == b"manifest"
