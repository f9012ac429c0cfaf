"""The author's API: a fluent builder that makes the job graph, functions with their declared state,
and the port that sources and sinks fill (`connector`). Nothing here runs a job.
"""
