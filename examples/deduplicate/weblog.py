"""One request of an Apache access log in combined format."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

_LINE = re.compile(r'(\S+) \S+ \S+ \[([^]]+)\] "(\S+) (\S+) [^"]+" (\d{3}) (\d+|-) "[^"]*" "[^"]*"')


@dataclass(frozen=True, slots=True)
class Request:
    host: str
    at: datetime
    method: str
    path: str
    status: int
    size: int


def requests(line: str) -> Iterator[Request]:
    """The request of a line; none of a malformed line."""
    if found := _LINE.fullmatch(line):
        host, at, method, path, status, size = found.groups()
        when = datetime.strptime(at, "%d/%b/%Y:%H:%M:%S %z")
        yield Request(host, when, method, path, int(status), 0 if size == "-" else int(size))
