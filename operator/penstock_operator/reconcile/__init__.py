"""Decisions: from what was observed to what is to be done. Pure; `job` is where to begin."""
