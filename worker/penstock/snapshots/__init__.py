"""Read checkpoints and savepoints without a job.

>>> snapshot = Snapshot.open("state/savepoints/savepoint-3f9a1c-07d2c5e81b90")  # doctest: +SKIP
>>> dict(snapshot.values("counts", "count"))["the"]  # doctest: +SKIP
"""

from penstock.snapshots.snapshot import Snapshot as Snapshot

__all__ = ["Snapshot"]
