"""The job's manifest (one model for `penstock run` and for the CRD), its author's function and
parameters, and the orders a coordinator takes.

Every mistake a person can make in a manifest is answered here, in words and with its line. Nothing
here starts anything.
"""
