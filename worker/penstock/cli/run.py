"""`penstock run`: a job on this machine, from the manifest that Kubernetes takes."""

from __future__ import annotations

import click

from penstock.cli.help import Command, Option
from penstock.cli.options import parameter_option, target_argument
from penstock.cli.output import output_option


def _run(
    target: str,
    parameters: tuple[str, ...],
    parallelism: int | None,
    restore: str | None,
    log: str | None,
    port: int | None,
    storage: str | None,
    form: str | None,
) -> int:
    from penstock.runtime.warm import COORDINATOR_MODULE, WORKER_MODULE, warmed

    with warmed(COORDINATOR_MODULE, WORKER_MODULE) as warm:
        from penstock.cli.running import run  # takes as long to import as those two do

        return run(
            target,
            parameters=parameters,
            parallelism=parallelism,
            restore=restore,
            log=log,
            port=port,
            storage=storage,
            form=form,
            warm=warm,
        )


run_command = Command(
    "run",
    usage="MANIFEST|MODULE:FUNCTION [OPTIONS]",
    callback=_run,
    examples="""\
      penstock run streamjob.yaml                      as on Kubernetes
      penstock run streamjob.yaml -p output=./x        with another parameter
      penstock run wordcount:job -p input=a.txt ...    without a manifest, all defaults""",
    closing="Ctrl-C stops with a savepoint and says how to resume; a second one cancels.",
    params=[
        target_argument(),
        parameter_option(),
        Option(
            ["-n", "--parallelism"],
            type=click.IntRange(min=1),
            metavar="N",
            help="Worker processes",
            shown_default="manifest, else 1",
        ),
        Option(
            ["--restore"],
            metavar="latest|none|PATH|TIME",
            help="Where state comes from",
            shown_default="manifest: latest",
        ),
        Option(
            ["--storage"],
            metavar="manifest|URL",
            help="Where checkpoints and savepoints go",
            shown_default="./state for s3://",
        ),
        Option(
            ["--log"],
            type=click.Choice(["plain", "json", "live"]),
            metavar="plain|json|live",
            shown_default="live on a terminal, else plain",
        ),
        Option(
            ["--port"],
            type=click.IntRange(0, 65535),
            metavar="PORT",
            help="REST and page of the coordinator",
            shown_default="8081, next free",
        ),
        output_option(),
    ],
)
