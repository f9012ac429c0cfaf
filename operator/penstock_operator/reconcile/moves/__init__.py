"""Moves from what is to what is wanted, each in steps; `lifecycle` chooses the move and its step."""
