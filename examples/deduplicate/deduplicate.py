"""Each request once, by primary key (host, second, path); the others go to a side output."""

from collections.abc import Iterator
from datetime import datetime

from weblog import Request, requests

import penstock
from penstock import sinks, sources
from penstock.formats import Json

Key = tuple[str, datetime, str]


def primary_key(request: Request) -> Key:
    return request.host, request.at, request.path


class FirstOnly(penstock.KeyedFunction):
    seen = penstock.ValueState(bool, default=False)
    again = penstock.SideOutput(Request)

    def process(self, request: Request, ctx: penstock.Context[Key]) -> Iterator[Request]:
        if self.seen.value:
            self.again.emit(request)
        else:
            self.seen.value = True
            yield request


def job(env: penstock.Environment, *, input: str, output: str) -> None:
    lines = env.source(sources.Files(input), uid="lines")
    first = lines.flat_map(requests).key_by(primary_key).process(FirstOnly(), uid="first")
    first.sink(sinks.Files(f"{output}/first", Json()), uid="out")
    first.side(FirstOnly.again).sink(sinks.Files(f"{output}/again", Json()), uid="again")
