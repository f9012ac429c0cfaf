"""What a coordinator can tell about its job: derived from the events and effects that pass by.

Keeps nothing that decisions are made from. REST, metrics, the page and the live view read it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from penstock.checkpoint import effects, events
from penstock.checkpoint.rescaling import trying
from penstock.checkpoint.settings import CheckpointSettings
from penstock.core.failure import Failure
from penstock.core.ids import AttemptNumber, CheckpointId, WorkerId
from penstock.core.log import Attempt, EndKind, Entry, EntryKind
from penstock.core.manifest import Manifest
from penstock.network.frames import Heartbeat, OperatorMetrics
from penstock.spec.orders import JobPhase

HISTORY_MAX = 100
FAILURES_MAX = 20
LINES_MAX = 200
_SAMPLE_EVERY_MS = 500
_RATES_OVER_MS = 5_000


_PHASE_OF_END = {
    EndKind.FINISHED: JobPhase.FINISHED,
    EndKind.STOPPED: JobPhase.STOPPED,
    EndKind.CANCELLED: JobPhase.CANCELLED,
    EndKind.FAILED: JobPhase.FAILED,
}
_COMPLETE = frozenset({EndKind.FINISHED, EndKind.STOPPED})


class CheckpointStatus(StrEnum):
    """How far a checkpoint got."""

    IN_PROGRESS = "InProgress"
    COMPLETED = "Completed"
    FAILED = "Failed"


@dataclass(slots=True)
class CheckpointRecord:
    """One checkpoint or savepoint, as far as this coordinator saw it.

    `size_bytes` is the state that it names, `bytes_new` what was uploaded for it.
    """

    id: CheckpointId
    savepoint: bool
    started_ms: int
    acknowledged: int = 0
    status: CheckpointStatus = CheckpointStatus.IN_PROGRESS
    ended_ms: int | None = None
    bytes_new: int = 0
    size_bytes: int = 0
    path: str | None = None
    """Of its `_metadata`, as the log names it."""
    folder: str | None = None
    """Of a savepoint, below the savepoints' root."""
    reason: str | None = None

    @property
    def duration_ms(self) -> int | None:
        """From the trigger to the end; None while in progress."""
        return None if self.ended_ms is None else self.ended_ms - self.started_ms


@dataclass(frozen=True, slots=True)
class FailureRecord:
    """A failure of an attempt."""

    at_ms: int
    attempt: AttemptNumber
    failure: Failure


@dataclass(frozen=True, slots=True)
class Line:
    """One line for people."""

    at_ms: int
    kind: str
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rates:
    """Of one operator over the last seconds; `busy` is the share of its subtasks' time, 0 to 1, and
    `read_bytes_per_second` what became less of its unread bytes; 0 where it became more."""

    records_per_second: float = 0.0
    busy: float = 0.0
    read_bytes_per_second: float = 0.0


@dataclass(slots=True)
class JobView:
    """The job as seen from its coordinator."""

    started_ms: int
    phase: JobPhase = JobPhase.WAITING
    newest: Entry | None = None
    running_since_ms: int | None = None
    ended_ms: int | None = None
    restarts: int = 0
    checkpoints: deque[CheckpointRecord] = field(default_factory=lambda: deque(maxlen=HISTORY_MAX))
    checkpoints_completed: int = 0
    completed_in_attempt: int = 0
    opening: Attempt | None = None
    """Of an entry that is on its way to the log."""
    live: Mapping[str, Any] = field(default_factory=dict)
    """The live settings in force; empty: the manifest's."""
    checkpoints_failed: int = 0
    failures: deque[FailureRecord] = field(default_factory=lambda: deque(maxlen=FAILURES_MAX))
    uncommitted: FailureRecord | None = None
    """Why what an ended run left is not committed yet; it is tried again."""
    lines: deque[Line] = field(default_factory=lambda: deque(maxlen=LINES_MAX))
    _commits_an_end: bool = False
    _last_start_ms: int = 0
    _last_end_ms: int = 0
    _publishing: dict[str, Manifest] = field(default_factory=dict)
    _beats: dict[WorkerId, Heartbeat] = field(default_factory=dict)
    _samples: deque[tuple[int, dict[str, OperatorMetrics]]] = field(default_factory=deque)

    # ── what is asked ───────────────────────────────────────────────────────────────────────────

    @property
    def attempt(self) -> AttemptNumber:
        """The newest attempt, also one that is just being opened; 0 before the first."""
        newest = self.newest_attempt
        return AttemptNumber(0) if newest is None else newest.number

    @property
    def newest_attempt(self) -> Attempt | None:
        """The attempt that the phase is about: as long as an entry is on its way, the one it opens."""
        return self.opening or (None if self.newest is None else self.newest.attempt)

    @property
    def last_completed(self) -> CheckpointRecord | None:
        """The newest completed checkpoint that this coordinator saw."""
        done = (c for c in reversed(self.checkpoints) if c.status is CheckpointStatus.COMPLETED)
        return next(done, None)

    def next_checkpoint_in_ms(self, now_ms: int, settings: CheckpointSettings) -> int | None:
        """When the clock takes the next checkpoint; None while one is under way, or for never."""
        if self.phase is not JobPhase.RUNNING or not settings.interval_ms:
            return None
        if any(c.status is CheckpointStatus.IN_PROGRESS for c in self.checkpoints):
            return None
        due_ms = max(
            self._last_start_ms + settings.interval_ms, self._last_end_ms + settings.min_pause_ms
        )
        return max(0, due_ms - now_ms)

    def operators(self) -> dict[str, OperatorMetrics]:
        """Totals of the newest attempt by operator, over all its subtasks."""
        totals: dict[str, OperatorMetrics] = {}
        for beat in self._beats.values():
            for name, metrics in beat.metrics.items():
                operator = name.rpartition("/")[0]
                totals[operator] = _sum(totals.get(operator), metrics)
        return totals

    def rates(self, operator: str, *, subtasks: int) -> Rates:
        """How fast an operator of so many subtasks is; sources by what they give."""
        if len(self._samples) < 2:
            return Rates()
        (from_ms, first), (to_ms, last) = self._samples[0], self._samples[-1]
        before = first.get(operator, OperatorMetrics())
        after = last.get(operator, OperatorMetrics())
        records = max(after.records_in - before.records_in, after.records_out - before.records_out)
        elapsed_ms = max(1, to_ms - from_ms)
        return Rates(
            records_per_second=max(0.0, records * 1000 / elapsed_ms),
            busy=min(1.0, max(0.0, (after.busy_ms - before.busy_ms) / elapsed_ms / subtasks)),
            read_bytes_per_second=max(0.0, _became_less(before, after) * 1000 / elapsed_ms),
        )

    # ── what passes by ──────────────────────────────────────────────────────────────────────────

    def heard(self, worker: WorkerId, beat: Heartbeat, now_ms: int) -> None:
        """A worker's heartbeat; those of older attempts are forgotten."""
        newest = max((b.attempt for b in self._beats.values()), default=beat.attempt)
        if beat.attempt > newest:
            self._beats.clear()
            self._samples.clear()
        if beat.attempt >= newest and (beat.metrics or worker not in self._beats):
            self._beats[worker] = beat
        self._sample(now_ms)

    def progress_age_ms(self, worker: WorkerId) -> int | None:
        """How long ago a worker's job code last returned, by its last heartbeat."""
        beat = self._beats.get(worker)
        return None if beat is None else beat.progress_age_ms

    def saw_event(self, event: events.Event, now_ms: int) -> None:
        """Take note of a fact, before the core is told."""
        match event:
            case events.EntryWon(entry=entry):
                self.opening = None
                self._won(entry, now_ms)
            case events.EntryLost(newest=entry):
                self.opening = None
                self.newest = entry
            case events.LogRead(newest=newest, manifests=manifests):
                self.newest = newest
                self._found(manifests)
            case events.SubtaskAcked(checkpoint=id, bytes_new=bytes_new):
                if record := self._in_progress(id):
                    record.acknowledged += 1
                    record.bytes_new += bytes_new
            case events.SavepointPublished(request_id=request_id):
                if manifest := self._publishing.pop(request_id, None):
                    self._completed(manifest.checkpoint, now_ms)
            case _:
                pass

    def saw_effect(self, effect: effects.Effect, now_ms: int) -> None:
        """Take note of what is about to be done."""
        match effect:
            case effects.Append(entry=entry) if entry.kind is EntryKind.OPENED:
                self.phase, self.opening = JobPhase.DEPLOYING, entry.attempt
            case effects.Prepare(commit_only=commit_only):
                self.phase = JobPhase.ENDING if commit_only else JobPhase.DEPLOYING
                self._commits_an_end = commit_only
            case effects.ApplySettings(live=live):
                self.live = live
            case effects.Run() if self.phase is JobPhase.DEPLOYING:
                self.phase = JobPhase.RUNNING
                self._last_start_ms = self._last_end_ms = now_ms
                if self.running_since_ms is None:
                    self.running_since_ms = now_ms
            case effects.Trigger():
                self._triggered(effect, now_ms)
            case effects.Abort(checkpoint=id, reason=reason):
                self._failed(id, reason, now_ms)
            case effects.Resume() if self.phase is JobPhase.STOPPING:
                self.phase = JobPhase.RUNNING
            case effects.WriteManifest(manifest=manifest):
                if record := self._in_progress(manifest.checkpoint):
                    record.size_bytes = manifest.size_bytes
            case effects.PublishSavepoint(request_id=request_id, manifest=manifest):
                self._publishing[request_id] = manifest
                if record := self._in_progress(manifest.checkpoint):
                    record.size_bytes = manifest.size_bytes
            case effects.CancelWorkers() if self.phase in {JobPhase.RUNNING, JobPhase.DEPLOYING}:
                self.phase = JobPhase.RESTARTING
            case effects.Tell(kind=kind, fields=fields):
                self.lines.append(Line(now_ms, kind, fields))
                failure = fields.get("failure")
                if isinstance(failure, Failure):
                    self.failures.append(FailureRecord(now_ms, self.attempt, failure))
                    if self._commits_an_end:
                        self.uncommitted = self.failures[-1]
            case effects.StandDown():
                self.phase = JobPhase.STOOD_DOWN
            case effects.JobOver(entry=entry):
                self._over(entry, now_ms)
            case _:
                pass

    def _found(self, manifests: Mapping[str, Manifest]) -> None:
        """Completed checkpoints that an earlier coordinator took: what the log keeps of them."""
        known = {record.id for record in self.checkpoints}
        retained = self.newest.retained if self.newest else ()
        for ref in sorted(retained, key=lambda ref: ref.id):
            manifest = manifests.get(ref.path)
            if manifest is not None and ref.id not in known:
                self.checkpoints.append(
                    CheckpointRecord(
                        ref.id,
                        savepoint=False,
                        started_ms=manifest.at_ms - manifest.duration_ms,
                        status=CheckpointStatus.COMPLETED,
                        ended_ms=manifest.at_ms,
                        size_bytes=manifest.size_bytes,
                        path=ref.path,
                    )
                )

    def _sample(self, now_ms: int) -> None:
        if self._samples and now_ms - self._samples[-1][0] < _SAMPLE_EVERY_MS:
            return
        self._samples.append((now_ms, self.operators()))
        while now_ms - self._samples[0][0] > _RATES_OVER_MS:
            self._samples.popleft()

    def _won(self, entry: Entry, now_ms: int) -> None:
        before = self.newest
        self.newest = entry
        if entry.end is None or entry.end.committed:
            self.uncommitted = None
        if entry.kind is EntryKind.ENDED and entry.end is not None:
            # Until others are deployed for it, only a run that came to its end has sinks that do it.
            self._commits_an_end = entry.end.kind in _COMPLETE
        if entry.kind is EntryKind.OPENED:
            self.ended_ms = None
            self.completed_in_attempt = 0
            is_rescale = trying(entry) is not None
            self.restarts += before is not None and before.end is None and not is_rescale
            for record in self.checkpoints:
                self._failed(record.id, "its attempt failed", now_ms)
            return
        self.completed_in_attempt += entry.kind is EntryKind.COMPLETED
        for ref in entry.retained:
            self._completed(ref.id, now_ms, ref.path)
        if entry.end is not None:
            if entry.end.go_on_from is not None:
                self._completed(entry.end.go_on_from.id, now_ms, entry.end.go_on_from.path)
            if not self.phase.is_end:
                self.phase = JobPhase.ENDING

    def _completed(self, id: CheckpointId, now_ms: int, path: str | None = None) -> None:
        if record := self._in_progress(id):
            record.status = CheckpointStatus.COMPLETED
            record.ended_ms = self._last_end_ms = now_ms
            record.path = path
            self.checkpoints_completed += 1

    def _over(self, entry: Entry, now_ms: int) -> None:
        self.newest = entry
        assert entry.end is not None, entry
        self.phase = _PHASE_OF_END[entry.end.kind]
        self.ended_ms = now_ms

    def _triggered(self, effect: effects.Trigger, now_ms: int) -> None:
        self._last_start_ms = now_ms
        self.checkpoints.append(
            CheckpointRecord(
                effect.checkpoint,
                savepoint=effect.savepoint is not None,
                started_ms=now_ms,
                folder=effect.savepoint,
            )
        )
        if effect.stop and effect.savepoint is not None:
            self.phase = JobPhase.STOPPING

    def _failed(self, id: CheckpointId, reason: str, now_ms: int) -> None:
        if record := self._in_progress(id):
            record.status = CheckpointStatus.FAILED
            record.reason = reason
            record.ended_ms = self._last_end_ms = now_ms
            self.checkpoints_failed += 1

    def _in_progress(self, id: CheckpointId) -> CheckpointRecord | None:
        for record in reversed(self.checkpoints):
            if record.id == id and record.status is CheckpointStatus.IN_PROGRESS:
                return record
        return None


def _sum(a: OperatorMetrics | None, b: OperatorMetrics) -> OperatorMetrics:
    if a is None:
        return b
    counters = dict(a.counters)
    for name, count in b.counters.items():
        counters[name] = counters.get(name, 0) + count
    return OperatorMetrics(
        records_in=a.records_in + b.records_in,
        records_out=a.records_out + b.records_out,
        busy_ms=a.busy_ms + b.busy_ms,
        keys=a.keys + b.keys,
        state_bytes=a.state_bytes + b.state_bytes,
        counters=counters,
        unread_files=_sum_of_known(a.unread_files, b.unread_files),
        unread_bytes=_sum_of_known(a.unread_bytes, b.unread_bytes),
    )


def _sum_of_known(a: int | None, b: int | None) -> int | None:
    return b if a is None else a + (b or 0)


def _became_less(before: OperatorMetrics, after: OperatorMetrics) -> int:
    if before.unread_bytes is None or after.unread_bytes is None:
        return 0
    return before.unread_bytes - after.unread_bytes
