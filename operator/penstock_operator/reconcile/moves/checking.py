"""Whether a version can go on from the job's state: what a check pod says, run while the job runs on.

The pod has the version's own image, code and credentials, so it proves that these are there, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from penstock_operator.reconcile import facts
from penstock_operator.reconcile.effects import DeletePods, RunCheck
from penstock_operator.reconcile.observed import Report
from penstock_operator.reconcile.turn import Turn

LATEST = "latest"
_TRIES_MAX = 3
_AFTER_NO_RUN = timedelta(minutes=1)
_CLOCKS_DIFFER = timedelta(seconds=2)
_NOT_A_VERDICT = frozenset({1, 3, 4})
"""Exit codes of a pod that could not say: something unexpected, the store is away, damage (of a
checkpoint that was dropped meanwhile)."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether it fits, and why not. `is_known` False: no check came to an end that says so."""

    fits: bool
    sentence: str
    is_known: bool = True


def check(turn: Turn, revision: str, *, against: str | None) -> Verdict | None:
    """What the check pod of this revision says; None until it does, and the pod is run."""
    report, move = turn.observed.check, turn.move
    assert move is not None, revision
    if report is None:
        if move.not_before is None or turn.now >= move.not_before:
            turn.do(RunCheck(revision, against))
        turn.wait("the new version looks whether it can go on")
        return None
    asked_at = max(move.started_at, move.not_before or move.started_at)
    is_stale = report.created_at < asked_at - _CLOCKS_DIFFER
    if (report.purpose, report.against) != (revision, against) or is_stale:
        forget(turn, report)
        turn.wait("a former check goes")
        return None
    if not report.has_ended:
        said = (
            f": {report.waiting}: {facts.shortened(report.message or '')}" if report.waiting else ""
        )
        turn.wait(f"the check pod {report.name} runs{said}")
        return None
    return _verdict(turn, report)


def forget(turn: Turn, report: Report) -> None:
    """Delete a pod that has said what it had to, or is not asked any more."""
    turn.do(DeletePods(((report.name, report.uid),)))


def is_waiting_for_image(turn: Turn) -> bool:
    """Whether the new version's image cannot be pulled so far."""
    report = turn.observed.check
    return report is not None and report.waiting in facts.IMAGE_REASONS


def _verdict(turn: Turn, report: Report) -> Verdict | None:
    told, move = report.verdict, turn.move
    assert move is not None, report
    if told is not None and told.get("fits") is True:
        return Verdict(True, "it fits")
    code = told.get("exitCode") if told is not None else None
    if told is None:
        sentence = facts.shortened(report.message or "the check pod ended without a verdict")
    else:
        sentence = facts.sentence_of(dict(told)) or "it does not fit"
    may_differ = told is None or (code in _NOT_A_VERDICT and "fits" not in told)
    if not report.has_run:  # a registry or a node is away: that says nothing of the version
        turn.note(not_before=turn.now + _AFTER_NO_RUN, error=f"the check did not run: {sentence}")
        turn.wait("the check is run again")
        return None
    if may_differ and (code == 3 or move.tries < _TRIES_MAX):
        turn.try_again(timedelta(seconds=10))
        turn.wait(f"the check is run again: {sentence}")
        return None
    return Verdict(False, sentence, is_known=not may_differ)
