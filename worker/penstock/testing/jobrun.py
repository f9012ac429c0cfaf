"""A whole job in this process: the real coordinator and mailboxes, lists in place of sources."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from penstock.core.errors import Rejected


class JobRun:
    """What a job has written, once it has ended."""

    def __init__(self, committed: Mapping[str, list[Any]]) -> None:
        self._committed = committed

    def sink(self, uid: str, /) -> list[Any]:
        """The records that a sink committed, in the order of commits.

        Raises:
            Rejected: the job has no sink of that uid.
        """
        if uid not in self._committed:
            raise Rejected(
                f"the job has no sink {uid}",
                where="JobRun.sink",
                fix=f"its sinks are: {', '.join(sorted(self._committed)) or 'none'}",
            )
        return list(self._committed[uid])


def run_job(
    job: Callable[..., None],
    /,
    *,
    sources: Mapping[str, Iterable[object]] | None = None,
    parallelism: int = 1,
    crash_after: Sequence[int] = (),
    **parameters: object,
) -> JobRun:
    """Run a bounded job to its end in this process, and return what its sinks committed.

    Records of `sources` come in place of the source of that uid; a source that is not named stays as
    it is and must end by itself. Sinks are replaced. The coordinator, the mailboxes and the state are
    those of a real run, on one thread and with a clock of their own; checkpoints follow each other
    closely. `crash_after`: each time that many records in all, those read again too, were read, all
    workers die, and the job goes on from the newest complete checkpoint.

    Raises:
        Rejected: the job cannot run, or a crash never came because the sources gave fewer records.
        Exception: whatever the author's code raised, with operator, record and key as a note.
    """
    # Loads the manifest's model, which tests of single functions do not wait for.
    from penstock.testing.inprocess import InProcessJob

    given = {uid: list(records) for uid, records in (sources or {}).items()}
    with InProcessJob(
        lambda env: job(env, **parameters),
        sources=given,
        parallelism=parallelism,
        crash_after=crash_after,
    ) as running:
        return JobRun(running.run())
