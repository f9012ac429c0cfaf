"""`penstock state`: look inside a snapshot, without the job and without a running process."""

from __future__ import annotations

import json

import click

from penstock.cli import numbers
from penstock.cli.difference import diff_states
from penstock.cli.errors import EXIT_DAMAGED, Failed
from penstock.cli.find import DEFAULT_STORAGE, locate
from penstock.cli.help import Command, Group, Option
from penstock.cli.inside import contents, find_value, ls_json, ls_text
from penstock.cli.output import one_line, output_option, plain, print_json
from penstock.snapshots import Snapshot


def storage_option() -> Option:
    """Where a bare name is looked for."""
    return Option(
        ["--storage"],
        default=DEFAULT_STORAGE,
        metavar="URL",
        help="Where a name like chk-8 is looked for",
        shown_default="./state",
    )


def _open(name: str, storage: str) -> Snapshot:
    return Snapshot.open(locate(name, storage))


def _ls(snapshot: str, storage: str, form: str | None) -> None:
    found = _open(snapshot, storage)
    inside = contents(found)
    if form == "json":
        print_json(ls_json(found, inside))
    else:
        click.echo(ls_text(found, inside, shown_as=snapshot), nl=False)


def _get(
    snapshot: str, operator: str, state: str, key: str, storage: str, form: str | None
) -> None:
    found = _open(snapshot, storage)
    value = find_value(found, operator, state, key)
    if form == "json":
        print_json({"operator": operator, "state": state, "key": key, "value": value})
    else:
        click.echo(one_line(value))


def _export(snapshot: str, operator: str, state: str, storage: str) -> None:
    for key, value in _open(snapshot, storage).values(operator, state):
        click.echo(json.dumps({"key": plain(key), "value": plain(value)}, ensure_ascii=False))


def _diff(a: str, b: str, storage: str, form: str | None, limit: int) -> None:
    found = diff_states(_open(a, storage), _open(b, storage))
    if form == "json":
        print_json(found.to_json())
    else:
        click.echo(found.text(a, b, limit=limit), nl=False)


def _verify(snapshot: str, storage: str, form: str | None) -> None:
    found = _open(snapshot, storage)
    damages = found.damages()
    files = len({file.path for file in found.manifest.files()})
    size_bytes = found.manifest.size_bytes
    if form == "json":
        print_json({"path": found.url, "files": files, "bytes": size_bytes, "damages": damages})
    elif damages:
        click.echo(f"error: {found.url} is damaged\n", err=True)
        for sentence in damages:
            click.echo(f"  {sentence}", err=True)
        click.echo("\nrestore an older one: penstock snapshots lists them", err=True)
    else:
        click.echo(
            f"{found.url} is whole: manifest and {numbers.counted(files, 'file')}, "
            f"{numbers.size(size_bytes)}, every checksum right"
        )
    if damages:
        raise Failed(EXIT_DAMAGED)


state_command = Group("state", help="Look inside a checkpoint or savepoint; no job need run.")

state_command.add_command(
    Command(
        "ls",
        usage="SNAPSHOT [OPTIONS]",
        short_help="Operators, their states, keys and bytes",
        callback=_ls,
        examples="""\
          penstock state ls savepoint-3f9a1c-07d2      a name in ./state, or its beginning
          penstock state ls s3://bucket/job/chk-12     a path or URL""",
        params=[click.Argument(["snapshot"]), storage_option(), output_option()],
    )
)
state_command.add_command(
    Command(
        "get",
        usage="SNAPSHOT OPERATOR STATE KEY [OPTIONS]",
        short_help="The value of one key",
        callback=_get,
        examples="""\
          penstock state get chk-12 counts count '"the"'      KEY is JSON: a text is in quotes
          penstock state get chk-12 visits last '["eu", 7]'   a tuple or dataclass is an array""",
        params=[
            click.Argument(["snapshot"]),
            click.Argument(["operator"]),
            click.Argument(["state"]),
            click.Argument(["key"]),
            storage_option(),
            output_option(),
        ],
    )
)
state_command.add_command(
    Command(
        "export",
        usage="SNAPSHOT OPERATOR STATE [OPTIONS]",
        short_help="Every key and value, a line of JSON each",
        callback=_export,
        examples='penstock state export chk-12 counts count > counts.jsonl    {"key": …, "value": …}',
        params=[
            click.Argument(["snapshot"]),
            click.Argument(["operator"]),
            click.Argument(["state"]),
            storage_option(),
        ],
    )
)
state_command.add_command(
    Command(
        "diff",
        usage="OLD NEW [OPTIONS]",
        short_help="Keys that were added, removed, changed; states whose type did",
        callback=_diff,
        examples="penstock state diff chk-11 chk-12",
        params=[
            click.Argument(["a"], metavar="OLD"),
            click.Argument(["b"], metavar="NEW"),
            Option(
                ["--limit"],
                type=click.IntRange(min=0),
                default=10,
                metavar="N",
                help="Keys shown of each state",
                shown_default="10",
            ),
            storage_option(),
            output_option(),
        ],
    )
)
state_command.add_command(
    Command(
        "verify",
        usage="SNAPSHOT [OPTIONS]",
        short_help="Is every file there and whole? (exit code 4: no)",
        callback=_verify,
        examples="penstock state verify chk-12",
        params=[click.Argument(["snapshot"]), storage_option(), output_option()],
    )
)
