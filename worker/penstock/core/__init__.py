"""Values every other room speaks in: identities, key groups, records, descriptors, the job graph,
the manifest, the log's entries, and every name that outlives a process.

Standard library only. Nothing here does I/O, reads a clock, or knows who calls it.
"""
