"""The settings that change without a restart: the manifest's own until an entry of the log has others.

What they mean is `read`'s business, which knows the manifest; here is when they come into force.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from penstock.checkpoint.checkpoints import Checkpoints
from penstock.checkpoint.effects import ApplySettings
from penstock.checkpoint.opening import LIVE
from penstock.checkpoint.outbox import Outbox
from penstock.checkpoint.restart import Restarts
from penstock.checkpoint.settings import CheckpointSettings
from penstock.core.errors import Rejected
from penstock.core.log import Entry

ReadSettings = Callable[[Mapping[str, Any]], CheckpointSettings]
"""What a document of live settings means; `{}` are the manifest's. Raises Rejected for a wrong one."""


class LiveSettings:
    """Those in force."""

    def __init__(
        self,
        settings: CheckpointSettings,
        read: ReadSettings | None,
        checkpoints: Checkpoints,
        restarts: Restarts,
        outbox: Outbox,
    ) -> None:
        self.settings = settings
        self._manifests = settings
        self._read = read
        self._document: Mapping[str, Any] = {}
        self._checkpoints = checkpoints
        self._restarts = restarts
        self._out = outbox

    def check(self, document: Mapping[str, Any]) -> None:
        """Raises Rejected for settings that cannot come into force, with the reason."""
        self._meant_by(document)

    def adopt(self, entry: Entry) -> None:
        """What this entry says comes into force; what cannot be read is told, and the manifest's is."""
        document = entry.settings.get(LIVE, {})
        if document == self._document:
            return
        try:
            self.settings = self._meant_by(document)
        except Rejected as e:
            self._out.tell("refused", error=e.what, where=e.where, fix=e.fix)
            self.settings, document = self._manifests, {}
        self._document = document
        self._checkpoints.apply(self.settings)
        self._restarts.apply(self.settings.restart)
        self._out.do(ApplySettings(dict(document)))

    def _meant_by(self, document: Mapping[str, Any]) -> CheckpointSettings:
        if not document or self._read is None:
            return self._manifests
        return self._read(document)
