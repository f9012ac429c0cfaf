"""What can be read off an observation: which coordinator answered, whether pods are in trouble.

Predicates alone; they decide nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta

from penstock.spec.orders import JobPhase, JobStatus
from penstock_operator.reconcile.observed import Observed, Pod

TEXT_LENGTH_MAX = 1500
IMAGE_GRACE = timedelta(minutes=2)
CRASH_LOOP = "CrashLoopBackOff"
UNSCHEDULABLE = "Unschedulable"
IMAGE_REASONS = frozenset(
    {"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull"}
)
CREATE_REASONS = frozenset(
    {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
)
_STORE_AWAY, _STOOD_DOWN = 3, 5
"""Exit codes that are not the fault of the code that runs."""
_NOTHING_RUNS = frozenset({JobPhase.WAITING, JobPhase.STOOD_DOWN})


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why pods do not do their work. `is_fault`: the version that they run is to blame."""

    reason: str
    message: str
    is_fault: bool


@dataclass(frozen=True, slots=True)
class LastWords:
    """Why a container ended."""

    sentence: str
    exit_code: int | None


def coordinator_of(observed: Observed, revision: str | None) -> JobStatus | None:
    """What the coordinator answered, if it should have been one of this revision.

    One that was told to go, perhaps on a node that is gone, is not waited for: should an order reach
    it, it refuses what is for another revision, and the log lets only one of two win.
    """
    pods = _staying(observed)
    is_sure = len(pods) == 1 and pods[0].is_ready and pods[0].revision == revision
    return observed.coordinator if is_sure else None


def _staying(observed: Observed) -> tuple[Pod, ...]:
    return tuple(pod for pod in observed.coordinator_pods if not pod.is_deleting)


def is_running(coordinator: JobStatus | None) -> bool:
    """Whether records flow, as far as one can see."""
    return coordinator is not None and coordinator.phase is JobPhase.RUNNING


def is_active(coordinator: JobStatus | None) -> bool:
    """Whether an attempt is opened, runs, or follows one that failed."""
    return coordinator is not None and not (
        coordinator.phase in _NOTHING_RUNS or coordinator.phase.is_end
    )


def is_about_to_recover(observed: Observed) -> bool:
    """Whether a coordinator that waits may open the next attempt without being told.

    It does when the newest attempt has its own revision; while it reads the log and gathers workers
    it looks like one that waits for an order.
    """
    c, pods = observed.coordinator, _staying(observed)
    return (
        c is not None
        and c.phase is JobPhase.WAITING
        and c.attempt > 0
        and len(pods) == 1
        and pods[0].revision == c.revision
    )


def connected(coordinator: JobStatus) -> frozenset[int]:
    """Ordinals of the workers that are registered."""
    return frozenset(w.id for w in coordinator.workers if w.connected)


def trouble(observed: Observed, revision: str | None, now: datetime) -> Trouble | None:
    """The worst of what keeps the pods of a revision from working."""
    pods = (*observed.coordinator_pods, *observed.worker_pods)
    found = [t for pod in pods if pod.revision == revision and (t := _trouble(pod, now))]
    refused = observed.coordinator_workload
    if refused is not None and refused.revision == revision and refused.failure is not None:
        said = f"no pod of the coordinator can be made: {shortened(refused.failure)}"
        found.append(Trouble("PodsRefused", said, is_fault=False))
    return next((t for t in found if t.is_fault), found[0] if found else None)


def cannot_answer(observed: Observed) -> bool:
    """Whether the coordinator's container ends again and again, or never began."""
    blocked = IMAGE_REASONS | CREATE_REASONS | {CRASH_LOOP}
    return any(p.waiting in blocked and not p.is_ready for p in observed.coordinator_pods)


def _trouble(pod: Pod, now: datetime) -> Trouble | None:
    if pod.is_deleting or pod.is_ready:
        return None
    words = last_words(pod.termination)
    if words.exit_code == _STOOD_DOWN:
        return Trouble("ForeignState", f"{pod.name}: {words.sentence}", is_fault=False)
    if words.exit_code == _STORE_AWAY:
        return Trouble("StorageAway", f"{pod.name}: {words.sentence}", is_fault=False)
    is_late = now - pod.created_at > IMAGE_GRACE
    said = f": {shortened(pod.message)}" if pod.message else ""
    if pod.waiting == CRASH_LOOP:
        return Trouble(
            "CrashLoop", f"{pod.name} ends again and again: {words.sentence}", is_fault=True
        )
    if pod.waiting in IMAGE_REASONS:
        return Trouble("ImagePull", f"{pod.name} waits for its image{said}", is_fault=is_late)
    if pod.waiting in CREATE_REASONS:
        return Trouble("CannotStart", f"{pod.name} cannot start{said}", is_fault=is_late)
    if pod.waiting == UNSCHEDULABLE and is_late:
        return Trouble(UNSCHEDULABLE, f"no node has room for {pod.name}{said}", is_fault=False)
    return None


def last_words(termination: str | None) -> LastWords:
    """A termination message in a sentence; ours are JSON with what, where, fix and exitCode."""
    text = (termination or "").strip()
    try:
        told = json.loads(text)
    except ValueError:
        told = None
    if not isinstance(told, dict) or not isinstance(told.get("what"), str):
        return LastWords(shortened(text) or "it said nothing", None)
    code = told.get("exitCode")
    return LastWords(sentence_of(told), code if isinstance(code, int) else None)


def sentence_of(told: dict[str, object]) -> str:
    """What went wrong, where, and what to do, in one line."""
    parts = (told.get("what"), told.get("where"), told.get("fix"))
    return shortened("; ".join(str(p) for p in parts if p))


def shortened(text: str) -> str:
    """In one line, and short enough for a field of a status: errors may hold anything."""
    line = " ".join(text.split())
    return line if len(line) <= TEXT_LENGTH_MAX else line[: TEXT_LENGTH_MAX - 1] + "…"
