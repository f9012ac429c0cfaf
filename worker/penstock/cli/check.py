"""`penstock check`: would this job restore from that snapshot?"""

from __future__ import annotations

import click

from penstock.checkpoint import restore
from penstock.cli import numbers
from penstock.cli.find import locate
from penstock.cli.help import Command
from penstock.cli.job import load
from penstock.cli.options import parameter_option
from penstock.cli.output import output_option, print_json
from penstock.cli.state import storage_option
from penstock.core.descriptors import KEYED_KINDS
from penstock.core.errors import Corrupt
from penstock.core.ids import OperatorId
from penstock.runtime.program import built
from penstock.snapshots import Snapshot
from penstock.state.schemas import is_readable


def _run(
    target: str, snapshot: str, parameters: tuple[str, ...], storage: str, form: str | None
) -> None:
    job = load(target, parameters)
    graph = built(job.bound).graph()
    found = Snapshot.open(locate(snapshot, storage))
    spec = job.manifest.spec
    rename = {OperatorId(a): OperatorId(b) for a, b in spec.restore.rename.items()}
    restore.verify(
        found.manifest,
        graph,
        parallelism=spec.parallelism,
        max_parallelism=spec.max_parallelism,
        rename=rename,
        allow_non_restored=spec.upgrade.allow_non_restored_state,
        is_readable=is_readable,
    )
    if damages := found.damages(content=False):
        raise Corrupt(
            f"the snapshot is damaged: {damages[0]}",
            where=found.url,
            fix="check another one: penstock snapshots lists them",
        )
    taken = {rename.get(uid, uid) for uid in found.manifest.operators}
    fresh = [str(o.id) for o in graph.operators if o.states and o.id not in taken]
    states = [s for uid in found.operators() for s in found.operator(uid).states]
    if form == "json":
        print_json({"fits": True, "snapshot": found.url, "startsEmpty": fresh})
        return
    manifest = found.manifest
    keyed = sum(s.kind in KEYED_KINDS for s in states)
    click.echo(
        f"yes: {job.name} restores from {snapshot} ({manifest.kind} of {manifest.job}, "
        f"{numbers.utc(manifest.at_ms)})\n\n"
        f"  state        {numbers.counted(keyed, 'keyed state')}, "
        f"{numbers.counted(len(states) - keyed, 'list')} of operators, all with a taker\n"
        f"  parallelism  {manifest.parallelism} → {spec.parallelism}, "
        f"at most {manifest.max_parallelism}"
    )
    if fresh:
        click.echo(f"  starts empty {', '.join(fresh)}: not in the snapshot")


check_command = Command(
    "check",
    usage="MANIFEST|MODULE:FUNCTION SNAPSHOT [OPTIONS]",
    callback=_run,
    examples="""\
      penstock check streamjob.yaml chk-12      exit code 0: it fits, 2: it does not, 4: damaged""",
    help="""\
    Compares operators, types of state and keys, and looks for every file; runs nothing.""",
    params=[
        click.Argument(["target"]),
        click.Argument(["snapshot"]),
        parameter_option(),
        storage_option(),
        output_option(),
    ],
)
