"""Stored values without the code that declared them, for people who look into snapshots.

A record comes as the dict of its fields (or a list, where its class is stored by position), a tuple
as a list. What an author's own serializer wrote stays bytes.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
from msgspec import msgpack

from penstock.core.descriptors import StateDescriptor
from penstock.core.errors import Corrupt
from penstock.core.snapshots import OWN_SERIALIZER
from penstock.state.serializers import _LARGE, MSGPACK, _large


def plain_value(data: bytes, serializer: str) -> Any:
    """A value's bytes as plain data; `serializer` is the name that its descriptor states.

    Raises:
        Corrupt: the bytes are not of that format.
    """
    try:
        if serializer == MSGPACK:
            return msgpack.decode(data.removeprefix(_LARGE), ext_hook=_large)
        if serializer == OWN_SERIALIZER:
            return json.loads(data)
    except (msgspec.MsgspecError, ValueError) as e:
        raise Corrupt(f"stored bytes are not {serializer}: {e}", where=data[:32].hex()) from e
    return data


def plain_map_key(data: bytes, descriptor: StateDescriptor) -> Any:
    """A map's key as plain data, hashable."""
    return _hashable(plain_value(data, descriptor.serializer))


def _hashable(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_hashable, value))
    if isinstance(value, dict):
        return tuple((_hashable(k), _hashable(v)) for k, v in value.items())
    return value
