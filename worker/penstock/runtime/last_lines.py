"""What a process writes to its stderr: passed on as it comes, its last lines kept for when it dies."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import IO

_STDERR = 2
_CHUNK_BYTES = 65_536
_BYTES_MAX = 4096
_LINES_MAX = 8
_PATIENCE_S = 2.0


class LastLines:
    """Of one process, and of what it starts. `end` is for it; `begun` when it has its own of that.

    A thread reads, so that nobody who writes waits for this process's loop.
    """

    def __init__(self, onto: IO[bytes] | None) -> None:
        """`onto` takes all of it, None is the stderr of this process."""
        self._onto = os.dup(_STDERR if onto is None else onto.fileno())
        self._kept = b""
        self._said, self.end = os.pipe()
        self._reader = threading.Thread(target=self._pass_on, name="stderr", daemon=True)
        self._reader.start()

    def begun(self) -> None:
        """The process has the end that it writes to: when it is gone, nobody has."""
        os.close(self.end)

    def lines(self) -> tuple[str, ...]:
        """The last ones, once the process is gone; all is passed on by then."""
        self._reader.join(_PATIENCE_S)
        lines = self._kept.decode(errors="replace").splitlines()
        return tuple(line for line in lines if line.strip())[-_LINES_MAX:]

    def _pass_on(self) -> None:
        while chunk := os.read(self._said, _CHUNK_BYTES):
            self._kept = (self._kept + chunk)[-_BYTES_MAX:]
            with contextlib.suppress(OSError):  # nobody reads it any more
                while chunk:
                    chunk = chunk[os.write(self._onto, chunk) :]
        os.close(self._said)
        os.close(self._onto)
