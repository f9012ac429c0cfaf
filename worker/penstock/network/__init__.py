"""Frames and how they travel: control between coordinator, supervisors and children; channels
between subtasks. `frames` and `codec` are pure; sockets are in `control` and `channel`.
"""
