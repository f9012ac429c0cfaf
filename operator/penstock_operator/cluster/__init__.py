"""Deeds: observing the cluster, carrying out effects, talking to API server and coordinator."""
