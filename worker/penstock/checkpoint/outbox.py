"""What is to be done, in order, and what was answered to whom."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from penstock.checkpoint.effects import Answer, Effect, Tell
from penstock.core.log import Entry
from penstock.core.manifest import Manifest


class Outbox:
    """Collects the effects of one event. Answers are kept: the same request id, the same answer."""

    def __init__(self, savepoints_url: str) -> None:
        self._savepoints_url = savepoints_url
        self._effects: list[Effect] = []
        self._answers: dict[str, Answer] = {}

    def take(self) -> list[Effect]:
        """All effects since the last time."""
        taken, self._effects = self._effects, []
        return taken

    def do(self, *effects: Effect) -> None:
        """Add effects."""
        self._effects += effects

    def do_all(self, effects: Iterable[Effect]) -> None:
        """Add effects that somebody else made."""
        self._effects += effects

    def tell(self, kind: str, **fields: Any) -> None:
        """One line for people."""
        self.do(Tell(kind, fields))

    def has_answered(self, request_id: str) -> bool:
        """Whether this request was answered before; then it is answered again."""
        answer = self._answers.get(request_id)
        if answer is not None:
            self.do(answer)
        return answer is not None

    def answer(self, request_id: str | None, *, ok: bool, **detail: Any) -> None:
        """Answer a request; one that nobody made (None) needs none."""
        if request_id is not None:
            self._answers[request_id] = Answer(request_id, ok, detail)
            self.do(self._answers[request_id])

    def answer_savepoint(self, request_id: str, folder: str, manifest: Manifest) -> None:
        """The savepoint stands in that folder, complete."""
        self.answer(
            request_id,
            ok=True,
            path=f"{self._savepoints_url}/{folder.rstrip('/')}",
            checkpoint=manifest.checkpoint,
            bytes=manifest.size_bytes,
        )

    def answer_end(self, entry: Entry) -> None:
        """The run ended as was ordered, and everything is committed."""
        end = entry.end
        assert end is not None, entry
        detail: dict[str, Any] = {"end": end.kind.value}
        if end.go_on_from is not None:
            detail["checkpoint"] = end.go_on_from.id
        if end.savepoint is not None:
            detail["path"] = f"{self._savepoints_url}/{end.savepoint.rstrip('/')}"
        self.answer(entry.request_id, ok=True, **detail)
