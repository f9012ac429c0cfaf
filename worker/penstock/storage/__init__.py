"""Checkpoint storage: one port (`store`), and its adapters.

Objects by path, created whole or not at all. The one atomic decision the whole system stands on is
*create if absent*. Nothing here knows what the bytes mean.
"""
