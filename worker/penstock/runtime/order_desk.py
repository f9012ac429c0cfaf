"""Where orders come in, through either REST: each goes to the core once, and is remembered.

The same request id gets the same answer; what became of a request can be asked at any time.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TypeAlias

from penstock.checkpoint import events, start
from penstock.checkpoint import origin as begins
from penstock.core import paths
from penstock.core.errors import Outdated, PenstockError, Rejected, Retryable
from penstock.core.ids import CheckpointId, OperatorId
from penstock.core.log import EndKind, Entry
from penstock.runtime import snapshot_files
from penstock.runtime.coordinator_shell import Order, Shell
from penstock.runtime.job_storage import JobStorage
from penstock.runtime.program import Program, has_unread
from penstock.spec.orders import (
    CancelOrder,
    CheckpointOrder,
    DisposeOrder,
    Origin,
    RefusalKind,
    RequestPhase,
    RequestStatus,
    RescaleOrder,
    SavepointOrder,
    SettingsOrder,
    StartOrder,
    StopOrder,
    restore_id_of,
)
from penstock.spec.parts.snapshots import Restore, RestorePolicy

AnyOrder: TypeAlias = (
    StartOrder
    | SavepointOrder
    | CheckpointOrder
    | StopOrder
    | CancelOrder
    | RescaleOrder
    | SettingsOrder
    | DisposeOrder
)

KINDS: dict[type[AnyOrder], str] = {
    StartOrder: "start",
    SavepointOrder: "savepoint",
    CheckpointOrder: "checkpoint",
    StopOrder: "stop",
    CancelOrder: "cancel",
    RescaleOrder: "rescale",
    SettingsOrder: "settings",
    DisposeOrder: "dispose",
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
        if not self.has_read_log:
            raise LogIsBeingRead
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

    @property
    def has_read_log(self) -> bool:
        """Whether anything can be told or ordered."""
        return self._shell.has_read_log.is_set()

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
            said = error.in_a_line if isinstance(error, PenstockError) else str(error)
            return RequestStatus(
                request_id=request_id,
                kind=kind,
                phase=RequestPhase.FAILED,
                error=said,
                refusal=refusal_of(error),
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
            refused = Outdated if detail["outdated"] else Rejected
            raise refused(detail["error"], where=detail.get("where"), fix=detail["fix"])
        path = self._path(order, answer.detail) if answer.ok else None
        return RequestStatus(
            request_id=request_id,
            kind=kind,
            phase=RequestPhase.DONE if answer.ok else RequestPhase.FAILED,
            path=path,
            error=None if answer.ok else str(answer.detail.get("error", "refused")),
            refusal=RefusalKind.OUTDATED if answer.detail.get("outdated") else None,
        )

    async def _event(self, order: AnyOrder) -> Order | None:
        """What the core is told; None when there is nothing to do."""
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
            case CancelOrder(request_id=request_id, retain=retain):
                return events.CancelOrdered(request_id, retain)
            case RescaleOrder(request_id=request_id, parallelism=parallelism):
                return events.RescaleOrdered(request_id, parallelism)
            case SettingsOrder(request_id=request_id, settings=settings):
                return events.SettingsOrdered(request_id, settings)
            case DisposeOrder(request_id=request_id, path=path):
                folder, manifest = await self._shell.in_thread(
                    lambda: snapshot_files.savepoint_at(self._storage, path)
                )
                return events.DisposeOrdered(request_id, folder, manifest)

    async def _start(self, order: StartOrder) -> events.StartOrdered | None:
        """None when there is nothing to run: all was read to its end, and nothing came since."""
        entry = await self._shell.in_thread(lambda: snapshot_files.read_newest_entry(self._storage))
        restore = order.restore or Restore()
        source: begins.RestoreFrom | None = None
        is_new = start.has_seen(entry, order.after)  # else the core answers without looking further
        if is_new and _is_named(order, entry):
            found = await self._shell.in_thread(
                lambda: snapshot_files.resolve(self._storage, restore.from_)
            )
            source = begins.RestoreFrom(
                snapshot=found.ref if found else None, manifest=found.manifest if found else None
            )
        elif is_new and _goes_on(order) and entry is not None:
            newest = entry
            if await self._shell.in_thread(lambda: self._has_finished_for_good(newest)):
                return None
        may_leave_state = order.allow_non_restored_state
        if may_leave_state is None:
            may_leave_state = self._program.manifest.spec.upgrade.allow_non_restored_state
        return events.StartOrdered(
            request_id=order.request_id,
            after=order.after,
            revision=order.revision,
            parallelism=order.parallelism,
            max_parallelism=order.max_parallelism or self._program.manifest.spec.max_parallelism,
            origin=begins.Origin(order.origin.value),
            restore=source,
            restore_id=restore_id_of(order.restore) if order.restore else None,
            rules=begins.RestoreRules(
                rename={OperatorId(k): OperatorId(v) for k, v in restore.rename.items()},
                allow_non_restored=may_leave_state,
                allow_empty=restore.policy is RestorePolicy.ALLOW_EMPTY,
                allow_older=restore.allow_older,
            ),
            hold_stable=order.hold,
            live=order.settings,
        )

    def _has_finished_for_good(self, entry: Entry) -> bool:
        if entry.end is None or entry.end.kind is not EndKind.FINISHED:
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
            case DisposeOrder() if isinstance(url := detail.get("path"), str):
                return url
            case _:
                return None


class LogIsBeingRead(Retryable):
    """Nothing can be told or ordered yet."""

    def __init__(self) -> None:
        super().__init__(
            "the coordinator has just begun, and reads the job's log",
            where="coordinator",
            fix="ask again in a moment",
        )


def refusal_of(error: BaseException) -> RefusalKind | None:
    """What the sender of an order does next that met this error; None: send it once more."""
    match error:
        case Outdated():
            return RefusalKind.OUTDATED
        case PenstockError() if not isinstance(error, Retryable):
            return RefusalKind.REJECTED
    return None


def _goes_on(order: StartOrder) -> bool:
    return order.origin in (Origin.LOG, Origin.RESTORE)


def _is_named(order: StartOrder, entry: Entry | None) -> bool:
    """Whether the order says which snapshot, and it is to be obeyed now."""
    if order.restore is None or order.restore.from_.lower() == snapshot_files.LATEST:
        return False
    if order.origin is Origin.LOG:
        return start.is_restore_due(entry, restore_id_of(order.restore))
    return order.origin is Origin.RESTORE
