"""A whole job in one process, from one seed: fake time, network and store, and everything that can go
wrong with them.

The decisions are the production ones (`penstock.checkpoint`); what surrounds them is simulated, and
what comes out is checked against the input. `python -m penstock.testing.simulation --seeds 300`.
"""
