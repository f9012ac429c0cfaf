"""Deeds: observing the cluster, carrying out effects, talking to API server and coordinator.

`observe` reads with `facts`, `execute` writes with `apply` and `events`; `kube` and `coordinator_client`
are the doors. `loop` calls them, turn by turn.
"""
