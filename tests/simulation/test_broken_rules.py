"""The simulator notices when a rule of the protocol is broken; else it could not be trusted when it
finds nothing."""

import pytest

from penstock.checkpoint import events as told
from penstock.checkpoint import log
from penstock.core import paths
from penstock.core.ids import AttemptNumber
from penstock.core.log import Entry
from penstock.testing.simulation.job import JOB
from penstock.testing.simulation.shell import Shell
from penstock.testing.simulation.simulation import Simulation
from penstock.testing.simulation.store import Put

SEEDS = 60


class WithoutFence(Shell):
    """Writes the next entry over whatever stands there, and believes that it won."""

    def append(self, entry: Entry) -> None:
        path = paths.log_entry(JOB, entry.seq)
        self.sim.store.request(
            Put(path, entry.to_bytes()),
            lambda _: self.guard(lambda: self.take(told.EntryWon(entry))),
        )


class WithoutListing(Shell):
    """Believes an entry won as soon as it was created."""

    def append(self, entry: Entry) -> None:
        path, data = paths.log_entry(JOB, entry.seq), entry.to_bytes()

        def done(there: bytes) -> None:
            if there == data:
                self.take(told.EntryWon(entry))
            else:
                self.take(told.EntryLost(Entry.from_bytes(there, path=path)))

        self.drive(log.create(path, data), done)


class TakesLateAcknowledgements(Shell):
    """Counts every acknowledgement for whatever is pending."""

    def take(self, event: told.Event) -> None:
        run = self.job.run
        if isinstance(event, told.SubtaskAcked) and run is not None and run.pending is not None:
            event = told.SubtaskAcked(
                AttemptNumber(run.attempt.number),
                run.pending.checkpoint,
                event.subtask,
                event.parts,
                event.files,
                event.bytes_new,
            )
        super().take(event)


class DeletesBeforeTheEntry(Shell):
    """Deletes what an entry drops while its outcome is not known."""

    def append(self, entry: Entry) -> None:
        for ref in entry.dropping:
            self.delete((ref.path,), lambda: None)
        super().append(entry)


def first_violation(shell: type[Shell]) -> str | None:
    outcomes = (Simulation(seed, shell=shell).run() for seed in range(SEEDS))
    return next((o.violation for o in outcomes if o.violation), None)


@pytest.mark.parametrize(
    "broken",
    [WithoutFence, WithoutListing, TakesLateAcknowledgements, DeletesBeforeTheEntry],
    ids=lambda shell: shell.__name__,
)
def test_a_broken_rule_is_noticed(broken: type[Shell]):
    assert first_violation(broken) is not None
