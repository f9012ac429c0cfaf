"""Reaping: the first process of a container inherits every child whose parent has died."""

from __future__ import annotations

import os
from collections.abc import Collection

_FIRST = 1


def reap_orphans(own: Collection[int]) -> None:
    """Let go of dead processes that nobody waits for; `own` are waited for by those that started
    them. Without effect in any process but the first."""
    if os.getpid() != _FIRST:
        return
    try:
        while dead := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if dead.si_pid in own:
                return  # the others come after it was waited for
            os.waitpid(dead.si_pid, 0)
    except ChildProcessError:
        return
