"""Which image the pods of a revision run: a tag may be moved, and then one revision is two programs.

What its pods were pulled as is kept with each revision. A pod that runs something else is told of, and
not stopped: whoever moved the tag may have meant it.
"""

from __future__ import annotations

from collections.abc import Iterable

from penstock_operator.reconcile.effects import RecordDigests
from penstock_operator.reconcile.observed import Pod, Revision
from penstock_operator.reconcile.turn import Turn

DIGESTS_KEPT = 8
_SHOWN = len("sha256:") + 12


def look(turn: Turn) -> None:
    """Keep what runs with its revision; tell of what is new there."""
    for revision in turn.observed.revisions:
        _look_at(turn, revision)


def _look_at(turn: Turn, revision: Revision) -> None:
    observed = turn.observed
    seen = {
        "coordinator": _digests(observed.coordinator_pods, revision),
        "worker": _digests(observed.worker_pods, revision),
    }
    kept, said = dict(revision.digests), []
    for part, digests in seen.items():
        for digest in digests:
            before = kept.get(part, ())
            if digest in before:
                continue
            if before:
                said.append(f"{part} {digest[:_SHOWN]} instead of {before[-1][:_SHOWN]}")
            kept[part] = (*before, digest)[-DIGESTS_KEPT:]
    if said:
        _tell(turn, revision, ", ".join(said))
    if kept != revision.digests:
        turn.do(RecordDigests(revision.name, tuple(sorted(kept.items()))))


def _digests(pods: Iterable[Pod], revision: Revision) -> list[str]:
    """Each once, in the order of the pods."""
    return list(
        dict.fromkeys(
            pod.image_digest
            for pod in pods
            if pod.image_digest is not None and pod.revision == revision.id and not pod.is_deleting
        )
    )


def _tell(turn: Turn, revision: Revision, what: str) -> None:
    message = f"{revision.image} is another image than revision {revision.id} ran before: {what}"
    turn.announce("ImageChanged", message, is_warning=True)
    move = turn.status.move
    if move is not None and move.to_revision in (None, revision.id):
        turn.note(image_changed=message)
