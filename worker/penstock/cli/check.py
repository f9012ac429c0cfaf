"""`penstock check`: would this job restore from that snapshot?

For people a misfit is an error. For programs (`-o json`) it is an answer: a verdict, which a pod
leaves as its termination message too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click

from penstock.checkpoint import restore
from penstock.cli import numbers
from penstock.cli.find import locate
from penstock.cli.help import Command, Option
from penstock.cli.job import Job, build, load, load_here
from penstock.cli.options import parameter_option
from penstock.cli.output import output_option, print_json
from penstock.cli.state import storage_option
from penstock.core.descriptors import KEYED_KINDS
from penstock.core.errors import Corrupt, PenstockError, Rejected, Retryable
from penstock.core.graph import JobGraph
from penstock.core.ids import OperatorId
from penstock.core.log import Entry
from penstock.core.manifest import Manifest
from penstock.runtime import snapshot_files, termination
from penstock.runtime.backends import backend_factory
from penstock.runtime.job_storage import JobStorage, is_url, storage_of
from penstock.runtime.local import with_local_storage
from penstock.snapshots import Snapshot
from penstock.state.schemas import is_readable

_CHECKPOINT = re.compile(r"chk-(\d+)(?:/_metadata)?")
_TRIES = 5


@dataclass(frozen=True, slots=True)
class _Question:
    """The command line: `snapshot` is looked for in a storage, `against` in the manifest's own."""

    target: str | None
    snapshot: str | None
    against: str
    parameters: Sequence[str]
    storage: str

    def job(self) -> Job:
        """The job, its code imported."""
        if self.target is None:
            return load_here(self.parameters)
        return load(self.target, self.parameters)

    def found(self, job: Job) -> tuple[str, Manifest] | None:
        """The snapshot's URL and manifest; None when the job would start empty."""
        if self.snapshot is not None:
            opened = Snapshot.open(locate(self.snapshot, self.storage))
            if damages := opened.damages(content=False):
                raise Corrupt(
                    f"the snapshot is damaged: {damages[0]}",
                    where=opened.url,
                    fix="check another one: penstock snapshots lists them",
                )
            return opened.url, opened.manifest
        manifest = with_local_storage(job.manifest)
        return _of_the_job(storage_of(manifest, job.bound.folder), self.against)


@dataclass(frozen=True, slots=True)
class _Fit:
    """A job that restores. `fresh` are operators with state that the snapshot does not have."""

    job: Job
    url: str | None
    manifest: Manifest | None
    fresh: Sequence[str]


def _run(
    target: str | None,
    snapshot: str | None,
    against: str | None,
    parameters: tuple[str, ...],
    storage: str,
    form: str | None,
) -> None:
    if snapshot is not None and against is not None:
        raise Rejected(
            "two snapshots are named", where=f"{snapshot}, --against {against}", fix="leave one out"
        )
    question = _Question(target, snapshot, against or snapshot_files.LATEST, parameters, storage)
    if form == "json":
        verdict = _verdict(question)
        termination.leave(verdict)
        print_json(verdict)
        return
    job = question.job()
    graph = build(job).graph()
    click.echo(_text(_fit(job, graph, question.found(job)), snapshot), nl=False)


def _verdict(question: _Question) -> dict[str, Any]:
    """Whether it fits, and why not.

    Raises:
        Retryable: nobody knows, as the storage is away; it is left as the termination message.
    """
    url = None
    try:
        job = question.job()
        graph = build(job).graph()
        found = question.found(job)
        url = None if found is None else found[0]
        fit = _fit(job, graph, found)
    except (Rejected, Corrupt) as e:
        body = {"fits": False, **termination.error_body(e), "snapshot": url, "startsEmpty": []}
    except PenstockError as e:
        termination.leave(termination.error_body(e))
        raise
    else:
        from_ = "nothing: its code was loaded, its graph built" if url is None else url
        body = {
            "fits": True,
            "what": f"{fit.job.name} starts from {from_}",
            "where": None,
            "fix": None,
            "exitCode": 0,
            "snapshot": url,
            "startsEmpty": list(fit.fresh),
        }
    return body


def _fit(job: Job, graph: JobGraph, found: tuple[str, Manifest] | None) -> _Fit:
    """Compare. Raises Rejected when it does not fit."""
    spec = job.manifest.spec
    backend_factory(spec.state.backend)
    if found is None:
        return _Fit(job, None, None, [])
    url, manifest = found
    rename = {OperatorId(a): OperatorId(b) for a, b in spec.restore.rename.items()}
    restore.verify(
        manifest,
        graph,
        parallelism=spec.parallelism,
        max_parallelism=spec.max_parallelism,
        rename=rename,
        allow_non_restored=spec.upgrade.allow_non_restored_state,
        is_readable=is_readable,
    )
    taken = {rename.get(uid, uid) for uid in manifest.operators}
    fresh = [str(o.id) for o in graph.operators if o.states and o.id not in taken]
    return _Fit(job, url, manifest, fresh)


def _of_the_job(storage: JobStorage, wanted: str) -> tuple[str, Manifest] | None:
    """What a job would restore for these words; the job itself may run meanwhile.

    A checkpoint of its own that it has dropped since is answered for by the newest.
    """
    for _ in range(_TRIES):
        before = snapshot_files.read_newest_entry(storage)
        try:
            found = snapshot_files.resolve(storage, _or_newest(storage, wanted, before))
        except (Rejected, Corrupt):
            if snapshot_files.read_newest_entry(storage) == before:
                raise
            continue
        if found is None:
            return None
        path = found.ref.path
        url = path if is_url(path) else f"{storage.checkpoints.url}/{path}"
        return url.rpartition("/")[0], found.manifest
    raise Retryable(
        "the job dropped its checkpoints faster than they could be looked at",
        where=storage.checkpoints.url,
        fix="try again, or name a savepoint",
    )


def _or_newest(storage: JobStorage, wanted: str, newest: Entry | None) -> str:
    named = wanted.removeprefix(f"{storage.checkpoints.url}/{storage.job}/").rstrip("/")
    number = _CHECKPOINT.fullmatch(named)
    if number is None or newest is None or not newest.retained:
        return wanted
    kept = {ref.id for ref in newest.retained}
    is_dropped = int(number[1]) not in kept and int(number[1]) < max(kept)
    return snapshot_files.LATEST if is_dropped else wanted


def _text(fit: _Fit, shown_as: str | None) -> str:
    manifest, job = fit.manifest, fit.job
    if manifest is None:
        return f"yes: {job.name} starts empty; there is nothing to restore\n"
    states = [state for operator in manifest.operators.values() for state in operator.states]
    keyed = sum(state.kind in KEYED_KINDS for state in states)
    text = (
        f"yes: {job.name} restores from {shown_as or fit.url} ({manifest.kind} of {manifest.job}, "
        f"{numbers.utc(manifest.at_ms)})\n\n"
        f"  state        {numbers.counted(keyed, 'keyed state')}, "
        f"{numbers.counted(len(states) - keyed, 'list')} of operators, all with a taker\n"
        f"  parallelism  {manifest.parallelism} → {job.manifest.spec.parallelism}, "
        f"at most {manifest.max_parallelism}\n"
    )
    if fit.fresh:
        text += f"  starts empty {', '.join(fit.fresh)}: not in the snapshot\n"
    return text


check_command = Command(
    "check",
    usage="[MANIFEST|MODULE:FUNCTION] [SNAPSHOT] [OPTIONS]",
    callback=_run,
    examples="""\
      penstock check streamjob.yaml chk-12             exit code 0: yes, 2: no, 4: damaged
      penstock check streamjob.yaml --against latest   what its next start would restore
      penstock check streamjob.yaml -o json            a verdict; exit code 0 with either answer""",
    help="""\
    Compares operators, types of state and keys, and looks for every file; runs nothing. In a pod
    the manifest is the job's own.""",
    params=[
        click.Argument(["target"], required=False),
        click.Argument(["snapshot"], required=False),
        Option(
            ["--against"],
            metavar="WHAT",
            help="latest, none, PATH, TIME: of the job's own",
            shown_default="latest",
        ),
        parameter_option(),
        storage_option(),
        output_option(),
    ],
)
