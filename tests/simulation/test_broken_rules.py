"""The simulator notices when a rule of the protocol is broken; else it could not be trusted when it
finds nothing."""

from dataclasses import replace

import pytest

from penstock.checkpoint import disposal, log, rescaling
from penstock.checkpoint import effects as do
from penstock.checkpoint import events as told
from penstock.checkpoint.origin import Origin, RestoreFrom
from penstock.core import paths
from penstock.core.ids import AttemptNumber
from penstock.core.log import Entry
from penstock.core.manifest import Manifest
from penstock.testing.simulation.job import JOB, SINKS
from penstock.testing.simulation.shell import Shell
from penstock.testing.simulation.simulation import Simulation
from penstock.testing.simulation.store import SAVEPOINTS, Put

SEEDS = 300


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


class CommitsAllInAHold(Shell):
    """Lets sinks commit all that they restore, although a hold stands."""

    def execute(self, effect: do.Effect) -> None:
        if isinstance(effect, do.Prepare) and effect.committed is not None:
            restored = effect.attempt.restored_from
            if restored is not None:
                effect = replace(effect, committed=restored.id)
        super().execute(effect)


class ReleasesAtOnce(Shell):
    """Lets sinks commit every completed checkpoint, although a hold stands."""

    def execute(self, effect: do.Effect) -> None:
        if isinstance(effect, do.NotifyCompleted):
            effect = replace(effect, commit=True)
        super().execute(effect)


class ForgetsWhatAHoldWithholds(Shell):
    """Takes a cancel's end for the word that everything is committed, although a hold stands."""

    def execute(self, effect: do.Effect) -> None:
        entry = self.job.entry
        if isinstance(effect, do.Prepare) and entry is not None and entry.hold is not None:
            bare = {
                uid: {i: replace(part, lists={}) for i, part in parts.items()}
                if uid in SINKS
                else parts
                for uid, parts in effect.restore.items()
            }
            effect = replace(effect, restore=bare)
        super().execute(effect)


class RollsBackAfterTheRelease(Shell):
    """Goes back to before an upgrade whose output was committed."""

    def take(self, event: told.Event) -> None:
        entry, former = self.job.entry, self.sim.oracles.former_hold
        is_asked = isinstance(event, told.StartOrdered) and event.origin is Origin.HOLD
        if is_asked and former and entry and entry.hold is None:
            path = former.from_.path
            if (data := self.sim.store.objects.get(path)) is not None:
                named = RestoreFrom(former.from_, Manifest.from_bytes(data, path=path))
                event = replace(event, origin=Origin.RESTORE, restore=named)
        super().take(event)


class DisposesOfWhatIsNeeded(Shell):
    """Deletes a savepoint without asking who needs it."""

    def take(self, event: told.Event) -> None:
        if isinstance(event, told.DisposeOrdered) and event.manifest is not None:
            paths = disposal.objects(f"{SAVEPOINTS}/{event.folder}", event.manifest)
            self.delete(paths, lambda: None)
        else:
            super().take(event)


class AnswersRescalesTooEarly(Shell):
    """Calls a change of parallelism done when its records flow, before a checkpoint makes it firm."""

    def execute(self, effect: do.Effect) -> None:
        tried = rescaling.trying(self.job.entry)
        if isinstance(effect, do.Run) and tried is not None:
            super().execute(do.Answer(tried.request_id, True, {}))
        super().execute(effect)


class KeepsAFailedStopToItself(Shell):
    """Answers that a stop failed, and does not tell the workers that wait for its outcome."""

    def execute(self, effect: do.Effect) -> None:
        if not isinstance(effect, do.Abort | do.Resume):
            super().execute(effect)


def first_violation(shell: type[Shell]) -> str | None:
    outcomes = (Simulation(seed, shell=shell).run() for seed in range(SEEDS))
    return next((o.violation for o in outcomes if o.violation), None)


@pytest.mark.parametrize(
    "broken",
    [
        WithoutFence,
        WithoutListing,
        TakesLateAcknowledgements,
        DeletesBeforeTheEntry,
        CommitsAllInAHold,
        ReleasesAtOnce,
        ForgetsWhatAHoldWithholds,
        RollsBackAfterTheRelease,
        DisposesOfWhatIsNeeded,
        AnswersRescalesTooEarly,
        KeepsAFailedStopToItself,
    ],
    ids=lambda shell: shell.__name__,
)
def test_a_broken_rule_is_noticed(broken: type[Shell]):
    assert first_violation(broken) is not None
