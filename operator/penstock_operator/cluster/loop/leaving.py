"""Jobs and Savepoints of a namespace that is being deleted, where the operator may do nothing more.

With `watchNamespaces` its rights are a RoleBinding inside the namespace, which is deleted among the
first. What is left outside is enough to see who waits for us, and to let them go.
"""

from __future__ import annotations

from penstock_operator.cluster import facts
from penstock_operator.cluster.execute import Tools, set_finalizer
from penstock_operator.cluster.kube import NAMESPACES, SAVEPOINTS, STREAM_JOBS
from penstock_operator.cluster.observe import JobKey, status_of
from penstock_operator.resources.names import FINALIZER_SAVEPOINT, FINALIZER_STREAMJOB


def is_leaving(tools: Tools, namespace: str) -> bool:
    """Whether that namespace is being deleted, or gone."""
    found = tools.kube.find(NAMESPACES, None, namespace)
    return found is None or facts.is_deleting(found)


def let_go(tools: Tools, key: JobKey) -> None:
    """Takes our finalizers off that job and its Savepoints, of those that are deleted already.

    No pod can run there any more, so that all state stays where it is: the policy is Retain. It is
    logged, because an Event cannot be written there.
    """
    job = tools.kube.find(STREAM_JOBS, key.namespace, key.name)
    if job is not None and facts.is_deleting(job):
        state = status_of(job).next_restore
        if set_finalizer(tools.kube, STREAM_JOBS, job, FINALIZER_STREAMJOB, present=False):
            tools.log.warning("let go with its namespace", job=str(key), state_stays_at=state)
    for savepoint in tools.kube.list(SAVEPOINTS, key.namespace):
        is_its = savepoint.get("spec", {}).get("jobName") == key.name
        if is_its and facts.is_deleting(savepoint):
            set_finalizer(tools.kube, SAVEPOINTS, savepoint, FINALIZER_SAVEPOINT, present=False)
