"""A manifest and a log entry with every field in use; golden files hold their bytes."""

from penstock.core.descriptors import StateDescriptor, StateKind
from penstock.core.handles import FileHandle, KeyedFormat, KeyedHandle, SubtaskSnapshot
from penstock.core.ids import AttemptNumber, CheckpointId, JobId, OperatorId
from penstock.core.keygroups import HASH_NAME, KeyGroupRange
from penstock.core.keys import KEY_FORMAT
from penstock.core.log import Attempt, End, EndKind, Entry, EntryKind, Hold, SnapshotRef
from penstock.core.manifest import Manifest, OperatorSnapshot, SnapshotKind
from penstock.core.rows import ROW_FORMAT

MANIFEST = Manifest(
    kind=SnapshotKind.SAVEPOINT,
    job=JobId("wörter"),
    attempt=AttemptNumber(2),
    checkpoint=CheckpointId(17),
    at_ms=1_767_225_600_000,
    parallelism=2,
    max_parallelism=128,
    hash_name=HASH_NAME,
    key_format=KEY_FORMAT,
    row_format=ROW_FORMAT,
    request_id="before-the-holidays",
    duration_ms=345,
    parent="words/chk-9/_metadata",
    operators={
        OperatorId("lines"): OperatorSnapshot(
            parallelism=1,
            states=(StateDescriptor("offsets", StateKind.SPLIT_LIST, "msgpack/1", "int"),),
            subtasks=(SubtaskSnapshot(lists={"offsets": (b"\x01", b"\xff\x00")}),),
        ),
        OperatorId("counts"): OperatorSnapshot(
            parallelism=2,
            states=(
                StateDescriptor("count", StateKind.VALUE, "msgpack/1", "int"),
                StateDescriptor("seen", StateKind.MAP, "msgpack/1", "list[float]", "str"),
            ),
            key_schema="str",
            subtasks=(
                SubtaskSnapshot(
                    keyed=KeyedHandle(
                        KeyedFormat.CANONICAL,
                        KeyGroupRange(0, 64),
                        inline=b"\x00rows",
                        offsets=(0, 2, 5),
                    ),
                    watermark_ms=1_767_225_590_000,
                ),
                SubtaskSnapshot(
                    keyed=KeyedHandle(
                        KeyedFormat.ROCKSDB,
                        KeyGroupRange(64, 128),
                        files=(
                            FileHandle("shared/2-16-a", 1000, 0xDEADBEEF, True, "000012.sst"),
                            FileHandle("chk-17/2-17-counts-1-b", 20, 0x2A, False, "CURRENT"),
                        ),
                    ),
                ),
            ),
        ),
        OperatorId("out"): OperatorSnapshot(parallelism=1, subtasks=(SubtaskSnapshot(),)),
    },
)

REF = SnapshotRef(CheckpointId(16), "words/chk-16/_metadata", "ab" * 32)
ENTRY = Entry(
    seq=40,
    nonce="4cfe",
    at_ms=1_767_225_600_001,
    kind=EntryKind.ENDED,
    owner="local/läptop",
    job_nonce="0001",
    attempt=Attempt(
        number=AttemptNumber(2),
        revision="r7",
        parallelism=2,
        max_parallelism=128,
        placement=(1, 0),
        next_checkpoint=CheckpointId(10),
        restored_from=SnapshotRef(CheckpointId(9), "s3://b/savepoint-1-2/_metadata", "cd" * 32),
    ),
    request_id="stop-1",
    retained=(REF,),
    dropping=(SnapshotRef(CheckpointId(15), "words/chk-15/_metadata", "ef" * 32),),
    hold=Hold(from_=REF, after=CheckpointId(16), stable=3),
    end=End(EndKind.STOPPED, go_on_from=REF, committed=True, savepoint="s3://b/x", reason="asked"),
    settings={"checkpoint_interval_ms": 10_000},
)
