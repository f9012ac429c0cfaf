"""Savepoints without a StreamJob. Those that are deleted are let go: nobody can delete their files any
more. Others wait for one of that name, and say so by their phase.
"""

from __future__ import annotations

from datetime import timedelta

from penstock_operator.cluster import facts
from penstock_operator.cluster.events import About
from penstock_operator.cluster.execute import Tools, as_written, set_finalizer
from penstock_operator.cluster.kube import SAVEPOINTS
from penstock_operator.cluster.loop import leaving
from penstock_operator.cluster.observe import JobKey
from penstock_operator.manifests.names import Manifest
from penstock_operator.reconcile import savepoint as decisions
from penstock_operator.reconcile.effects import Announce, SetSavepointFinalizer
from penstock_operator.resources.names import FINALIZER_SAVEPOINT
from penstock_operator.resources.status import SavepointStatus

_LOOK_AGAIN = timedelta(seconds=30)


def let_go(tools: Tools, key: JobKey) -> timedelta | None:
    """What is due for each of that job's; None when none waits to be deleted."""
    found = [
        manifest
        for manifest in tools.kube.list(SAVEPOINTS, key.namespace)
        if manifest.get("spec", {}).get("jobName") == key.name
    ]
    waiting = [manifest for manifest in found if facts.is_deleting(manifest)]
    for manifest in found:
        if not facts.is_deleting(manifest) and not manifest.get("status"):
            pending = as_written(SavepointStatus())
            tools.kube.replace_status(SAVEPOINTS, {**manifest, "status": pending})
    if waiting and leaving.is_leaving(tools, key.namespace):
        leaving.let_go(tools, key)
        return _LOOK_AGAIN
    for manifest in waiting:
        _carry_out(tools, key, manifest)
    return _LOOK_AGAIN if waiting else None


def _carry_out(tools: Tools, key: JobKey, manifest: Manifest) -> None:
    found = facts.savepoint(manifest)
    if found is None:
        return
    for effect in decisions.orphaned(found, tools.now()):
        match effect:
            case Announce():
                about = About("Savepoint", key.namespace, found.name, found.uid, key.name)
                tools.recorder.tell(about, effect)
            case SetSavepointFinalizer(present=present):
                set_finalizer(
                    tools.kube, SAVEPOINTS, manifest, FINALIZER_SAVEPOINT, present=present
                )
            case _:
                raise AssertionError(effect)
