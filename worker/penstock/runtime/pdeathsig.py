"""Dying with one's parent: what a process started by `penstock run` does first.

Two ways, since neither is enough: the kernel's parent-death signal (Linux only; it follows the
thread that forked), and a pipe whose other end only the parent holds.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading

PARENT_PIPE_VARIABLE = "PENSTOCK_PARENT_PIPE"
"""Environment variable with the number of an inherited pipe's reading end."""

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """End this process by SIGKILL once its parent is gone; no effect where nobody passed a pipe."""
    descriptor = os.environ.get(PARENT_PIPE_VARIABLE)
    if not descriptor:
        return
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    threading.Thread(
        target=_kill_at_end_of, args=(int(descriptor),), name="parent-pipe", daemon=True
    ).start()


def _kill_at_end_of(descriptor: int) -> None:
    os.set_inheritable(descriptor, False)
    while os.read(descriptor, 1):
        pass
    os.kill(os.getpid(), signal.SIGKILL)
