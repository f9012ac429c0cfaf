"""Dying with one's parent: what a process started by `penstock run` does first.

No one way is enough. The kernel's parent-death signal is Linux's alone and follows the thread that
forked; a pipe whose other end only the parent holds must be passed on; a look at the parent's id
comes late. A process of the parent's takes the first two, what it starts itself the third.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

PARENT_PIPE_VARIABLE = "PENSTOCK_PARENT_PIPE"
"""Environment variable: the number of an inherited pipe's reading end, or `none` further down."""

NO_PIPE = "none"
"""The variable's value for a child of such a process, and for a worker's: its parent is all it has."""

_PR_SET_PDEATHSIG = 1
_LOOK_EVERY_S = 0.5


def die_with_parent() -> None:
    """End this process by SIGKILL once its parent is gone; no effect where nobody set the variable.

    A parent that is the first process of a container takes its children with it: nobody sees that.
    """
    pipe = os.environ.get(PARENT_PIPE_VARIABLE)
    if not pipe:
        return
    os.environ[PARENT_PIPE_VARIABLE] = NO_PIPE
    if pipe == NO_PIPE:
        _watch(_wait_for_another_parent, os.getppid())
        return
    descriptor = int(pipe)
    os.set_inheritable(descriptor, False)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    _watch(_wait_for_the_end_of, descriptor)


def _watch(wait: Callable[[int], None], argument: int) -> None:
    def kill_afterwards() -> None:
        wait(argument)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=kill_afterwards, name="parent-watch", daemon=True).start()


def _wait_for_the_end_of(descriptor: int) -> None:
    while os.read(descriptor, 1):
        pass


def _wait_for_another_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_EVERY_S)
