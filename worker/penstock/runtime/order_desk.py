"""Where orders come in, through either REST: each goes to the core once, and is remembered.

The same request id gets the same answer; what became of a request can be asked at any time.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TypeAlias

from penstock.checkpoint import events
from penstock.checkpoint.restore import RestoreFrom
from penstock.core import paths
from penstock.core.errors import PenstockError, Rejected
from penstock.core.ids import CheckpointId, OperatorId
from penstock.core.log import EndKind
from penstock.runtime import snapshot_files
from penstock.runtime.coordinator_shell import Shell
from penstock.runtime.job_storage import JobStorage
from penstock.runtime.program import Program, has_unread
from penstock.spec.orders import (
    CancelOrder,
    CheckpointOrder,
    RequestPhase,
    RequestStatus,
    SavepointOrder,
    StartOrder,
    StopOrder,
)
from penstock.spec.parts.snapshots import Restore

AnyOrder: TypeAlias = StartOrder | SavepointOrder | CheckpointOrder | StopOrder | CancelOrder

KINDS: dict[type[AnyOrder], str] = {
    StartOrder: "start",
    SavepointOrder: "savepoint",
    CheckpointOrder: "checkpoint",
    StopOrder: "stop",
    CancelOrder: "cancel",
}


@dataclass(slots=True)
class _Request:
    order: AnyOrder
    task: asyncio.Task[RequestStatus]


class OrderDesk:
    """Takes the orders for one job. All methods belong to the loop's thread."""

    def __init__(self, shell: Shell, storage: JobStorage, program: Program) -> None:
        self._shell = shell
        self._storage = storage
        self._program = program
        self._requests: dict[str, _Request] = {}

    async def take(self, order: AnyOrder, *, wait_s: float) -> RequestStatus:
        """Carry out an order, if its request id is new; what became of it within `wait_s`.

        Raises:
            PenstockError: it was refused before the core was asked; it may be sent again.
        """
        request = self._requests.get(order.request_id)
        if request is None:
            task = asyncio.create_task(self._carry_out(order))
            request = self._requests[order.request_id] = _Request(order, task)
        # Two passes of the loop settle what is known already.
        await asyncio.wait({request.task}, timeout=max(wait_s, 0.01))
        if request.task.done() and request.task.exception() is not None:
            self._requests.pop(order.request_id, None)
            request.task.result()
        return self._status(order.request_id, request)

    def status(self, request_id: str) -> RequestStatus | None:
        """What became of a request; None when it is not known here."""
        request = self._requests.get(request_id)
        return None if request is None else self._status(request_id, request)

    def kind_of(self, request_id: str) -> type[AnyOrder] | None:
        """What was asked under a request id."""
        request = self._requests.get(request_id)
        return None if request is None else type(request.order)

    def statuses(self) -> tuple[RequestStatus, ...]:
        """All requests since this process began, in order."""
        return tuple(self._status(id, request) for id, request in self._requests.items())

    def checkpoint_of(self, request_id: str) -> int | None:
        """The number of the checkpoint that a request made."""
        answer = self._shell.answer(request_id)
        number = None if answer is None else answer.detail.get("checkpoint")
        return number if isinstance(number, int) else None

    def _status(self, request_id: str, request: _Request) -> RequestStatus:
        kind = KINDS[type(request.order)]
        if not request.task.done():
            return RequestStatus(request_id=request_id, kind=kind, phase=RequestPhase.RUNNING)
        if (error := request.task.exception()) is not None:
            return RequestStatus(
                request_id=request_id, kind=kind, phase=RequestPhase.FAILED, error=str(error)
            )
        return request.task.result()

    async def _carry_out(self, order: AnyOrder) -> RequestStatus:
        request_id, kind = order.request_id, KINDS[type(order)]
        event = await self._event(order)
        if event is None:
            return RequestStatus(request_id=request_id, kind=kind, phase=RequestPhase.DONE)
        answer = await self._shell.order(event)
        if not answer.ok and "fix" in answer.detail:
            detail = answer.detail
            raise Rejected(detail["error"], where=detail.get("where"), fix=detail["fix"])
        path = self._path(order, answer.detail) if answer.ok else None
        return RequestStatus(
            request_id=request_id,
            kind=kind,
            phase=RequestPhase.DONE if answer.ok else RequestPhase.FAILED,
            path=path,
            error=None if answer.ok else str(answer.detail.get("error", "refused")),
        )

    async def _event(
        self, order: AnyOrder
    ) -> (
        events.StartOrdered
        | events.SavepointOrdered
        | events.CheckpointOrdered
        | events.StopOrdered
        | events.CancelOrdered
        | None
    ):
        match order:
            case StartOrder():
                return await self._start(order)
            case SavepointOrder(request_id=request_id):
                published = await self._shell.published_savepoint(request_id)
                return events.SavepointOrdered(request_id, published)
            case CheckpointOrder(request_id=request_id):
                return events.CheckpointOrdered(request_id)
            case StopOrder(request_id=request_id, drain=drain):
                return events.StopOrdered(request_id, drain)
            case CancelOrder(request_id=request_id):
                return events.CancelOrdered(request_id)

    async def _start(self, order: StartOrder) -> events.StartOrdered | None:
        """None when there is nothing to run: all was read to its end, and nothing came since."""
        restore = order.restore or Restore()
        allow_non_restored = self._program.manifest.spec.upgrade.allow_non_restored_state
        goes_on = restore.from_.lower() == snapshot_files.LATEST
        if goes_on and await self._shell.in_thread(self._has_finished_for_good):
            return None
        source: RestoreFrom | None = None
        if not goes_on or restore.rename or allow_non_restored:
            found = await self._shell.in_thread(
                lambda: snapshot_files.resolve(self._storage, restore.from_)
            )
            source = RestoreFrom(
                snapshot=found.ref if found else None,
                manifest=found.manifest if found else None,
                rename={OperatorId(k): OperatorId(v) for k, v in restore.rename.items()},
                allow_non_restored=allow_non_restored,
            )
        return events.StartOrdered(
            request_id=order.request_id,
            after=order.after,
            revision=order.revision,
            parallelism=order.parallelism,
            max_parallelism=order.max_parallelism,
            restore=source,
            hold_stable=order.hold,
        )

    def _has_finished_for_good(self) -> bool:
        entry = snapshot_files.read_newest_entry(self._storage)
        if entry is None or entry.end is None or entry.end.kind is not EndKind.FINISHED:
            return False
        if not entry.end.committed or entry.end.go_on_from is None:
            return False
        try:
            last = snapshot_files.read_snapshot(self._storage, entry.end.go_on_from)
        except PenstockError:
            return False  # the core says what is wrong with it
        return not has_unread(self._program, last.manifest)

    def _path(self, order: AnyOrder, detail: dict[str, object]) -> str | None:
        match order:
            case SavepointOrder(request_id=request_id) | StopOrder(request_id=request_id):
                folder = paths.savepoint_folder(self._storage.job, request_id)
                return f"{self._storage.savepoints.url}/{folder}".rstrip("/")
            case CheckpointOrder() if isinstance(number := detail.get("checkpoint"), int):
                folder = paths.checkpoint_folder(self._storage.job, CheckpointId(number))
                return f"{self._storage.checkpoints.url}/{folder}".rstrip("/")
            case _:
                return None
