"""Canonical bytes of keys: what a key *is*, on every backend, in every exchange, for ever.

Self-tagged by the value's own type, so that `1`, `1.0`, `True` and `"1"` are four keys; order
within one type follows the value's order where that costs nothing. Encodings delimit themselves:
no encoded key is a prefix of another, so a scan by prefix never matches a longer key.
Written down byte by byte in docs/reference/formats.md; golden files hold it still.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import struct
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, get_args, get_type_hints

from penstock.core.errors import Corrupt, Rejected

KEY_FORMAT = "key/1"

BY_OBJECT = frozenset({str, bytes, int})
"""Only of these exact types are equal objects the same key; to a dict `1`, `1.0` and `True` are one,
and so are tuples of them."""

# The tag is the first byte. Values are on disk: never change one.
_FALSE = b"\x01"
_TRUE = b"\x02"
_INT = b"\x03"
_FLOAT = b"\x04"
_STR = b"\x05"
_BYTES = b"\x06"
_DATE = b"\x07"
_DATETIME = b"\x08"
_DECIMAL = b"\x09"
_UUID = b"\x0a"
_ENUM = b"\x0b"
_TUPLE = b"\x0c"
_DATACLASS = b"\x0d"
_END = b"\x00"
_ESCAPED_END = b"\x00\x01"

_HALF = 1 << 63
_INT_64 = _INT + b"\x80"
"""Before an integer of 64 bits."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = datetime(1970, 1, 1, 0, 0, 0, 1) - datetime(1970, 1, 1)  # noqa: DTZ001


def encode_key(key: object) -> bytes:
    """The canonical bytes of a key.

    Raises:
        Rejected: the value cannot be a key (None, NaN, list, dict, set, a naive datetime, …).
    """
    encoder = _ENCODERS.get(key.__class__)
    if encoder is not None:
        return encoder(key)
    if isinstance(key, enum.Enum):
        # A flag of no bits has no name.
        return (
            _ENUM + _escaped(_type_name(type(key)).encode()) + _escaped((key.name or "").encode())
        )
    if dataclasses.is_dataclass(key) and not isinstance(key, type):
        if not key.__dataclass_params__.frozen:  # type: ignore[attr-defined]
            raise _refused(key, "a dataclass that is not frozen", "declare it with frozen=True")
        fields = b"".join(encode_key(getattr(key, f.name)) for f in dataclasses.fields(key))
        return _DATACLASS + _escaped(_type_name(type(key)).encode()) + fields + _END
    if isinstance(key, tuple):  # named tuples
        return _DATACLASS + _escaped(_type_name(type(key)).encode()) + _items(key) + _END
    raise _refused(key, f"a value of type {type(key).__name__}", _ADVICE)


_ADVICE = (
    "return str, bytes, int, float, bool, date, datetime, Decimal, UUID, an enum, "
    "or a tuple or frozen dataclass of these"
)


def _refused(key: object, kind: str, fix: str) -> Rejected:
    shown = repr(key)
    return Rejected(
        f"{kind} cannot be a key: {shown[:80]}{'…' if len(shown) > 80 else ''}",
        where="key_by",
        fix=fix,
    )


def _type_name(kind: type) -> str:
    return kind.__qualname__


def _escaped(data: bytes) -> bytes:
    # 00 is written 00 FF and the end 00 01: nothing inside can look like the end, order is kept.
    return data.replace(b"\x00", b"\x00\xff") + _ESCAPED_END


def _int(key: object) -> bytes:
    assert isinstance(key, int)
    # Sign and length first, so that the encoding delimits itself and sorts like the number.
    if -_HALF <= key < _HALF:
        return _INT_64 + (key + _HALF).to_bytes(8, "big")
    size = (key.bit_length() + 7) // 8
    if size > 0x7FFF:
        raise _refused("…", "an integer of more than 32,767 bytes", "use its hash")
    body = abs(key).to_bytes(size, "big")
    if key > 0:
        return _INT + b"\x81" + size.to_bytes(2, "big") + body
    return _INT + b"\x7f" + (0xFFFF - size).to_bytes(2, "big") + bytes(255 - b for b in body)


def _float(key: object) -> bytes:
    assert isinstance(key, float)
    if math.isnan(key):
        raise _refused(
            key, "NaN", "NaN equals nothing, not even itself; filter it out before key_by"
        )
    bits: int = struct.unpack(">Q", struct.pack(">d", key + 0.0))[0]  # -0.0 + 0.0 is 0.0
    ordered = bits ^ (0xFFFFFFFFFFFFFFFF if bits >> 63 else 1 << 63)
    return _FLOAT + ordered.to_bytes(8, "big")


def _date(key: object) -> bytes:
    assert isinstance(key, date)
    return _DATE + key.toordinal().to_bytes(4, "big")


def _datetime(key: object) -> bytes:
    assert isinstance(key, datetime)
    if key.utcoffset() is None:
        raise _refused(key, "a datetime without a time zone", "give it one: .replace(tzinfo=UTC)")
    return _DATETIME + ((key - _EPOCH) // _MICROSECOND + (1 << 63)).to_bytes(8, "big")


def _decimal(key: object) -> bytes:
    assert isinstance(key, Decimal)
    if not key.is_finite():
        raise _refused(key, f"Decimal({key})", "filter it out before key_by")
    # 1.0 and 1.00 are equal, so they are one key. Not normalize(): it rounds to the context's digits.
    sign, digits, exponent = key.as_tuple()
    assert isinstance(exponent, int)
    significant = "".join(map(str, digits)).rstrip("0")
    exponent += len(digits) - len(significant)
    exact = Decimal((sign, tuple(map(int, significant)), exponent)) if significant else Decimal(0)
    return _DECIMAL + _escaped(str(exact).encode())


def _str(key: object) -> bytes:
    assert isinstance(key, str)
    try:
        return _STR + _escaped(key.encode())
    except UnicodeEncodeError as e:
        raise _refused(key, "text that is not Unicode", "decode it with errors='replace'") from e


def _items(key: tuple[object, ...]) -> bytes:
    return b"".join(encode_key(item) for item in key)


def _tuple(key: object) -> bytes:
    assert isinstance(key, tuple)
    return _TUPLE + _items(key) + _END


_ENCODERS: dict[type, Callable[[object], bytes]] = {
    bool: lambda key: _TRUE if key else _FALSE,
    int: _int,
    float: _float,
    str: _str,
    bytes: lambda key: _BYTES + _escaped(key),  # type: ignore[arg-type]
    date: _date,
    datetime: _datetime,
    Decimal: _decimal,
    uuid.UUID: lambda key: _UUID + key.bytes,  # type: ignore[attr-defined]
    tuple: _tuple,
}


def encode_keys(keys: Sequence[Any], kind: type) -> list[bytes]:
    """The canonical bytes of many keys of exactly this type: `encode_key` of each, in less time.

    Raises:
        Rejected: one of them cannot be a key.
    """
    if kind is int and min(keys, default=0) >= -_HALF and max(keys, default=0) < _HALF:
        return [_INT_64 + (key + _HALF).to_bytes(8, "big") for key in keys]
    if kind is str and not any("\x00" in key for key in keys):
        try:
            return [_STR + key.encode() + _ESCAPED_END for key in keys]
        except UnicodeEncodeError:
            pass  # encode_key says which, in a sentence.
    return [encode_key(key) for key in keys]


def key_length(data: bytes, start: int = 0) -> int:
    """Where the key that begins at `start` ends.

    Raises:
        Corrupt: no key begins there.
    """
    try:
        return _end(data, start)
    except (IndexError, ValueError, RecursionError) as e:
        raise _corrupt(data, start) from e


def _corrupt(data: bytes, start: int) -> Corrupt:
    return Corrupt(f"not a key's bytes: {data[start : start + 32].hex()}")


def _end(data: bytes, at: int) -> int:
    tag = data[at : at + 1]
    if tag in (_FALSE, _TRUE):
        return at + 1
    if tag == _INT:
        kind = data[at + 1]
        if kind == 0x80:
            return _within(data, at + 10)
        if kind not in (0x7F, 0x81):
            raise ValueError(kind)
        size = int.from_bytes(data[at + 2 : at + 4], "big")
        return _within(data, at + 4 + (size if kind == 0x81 else 0xFFFF - size))
    if tag in (_FLOAT, _DATETIME):
        return _within(data, at + 9)
    if tag == _DATE:
        return _within(data, at + 5)
    if tag == _UUID:
        return _within(data, at + 17)
    if tag in (_STR, _BYTES, _DECIMAL):
        return _escaped_end(data, at + 1)
    if tag == _ENUM:
        return _escaped_end(data, _escaped_end(data, at + 1))
    if tag in (_TUPLE, _DATACLASS):
        at = at + 1 if tag == _TUPLE else _escaped_end(data, at + 1)
        while data[at] != 0:
            at = _end(data, at)
        return at + 1
    raise ValueError(tag)


def _within(data: bytes, end: int) -> int:
    if end > len(data):
        raise IndexError(end)
    return end


def _escaped_end(data: bytes, at: int) -> int:
    while True:
        zero = data.index(b"\x00", at)
        follower = data[zero + 1]
        if follower == 0x01:
            return zero + 2
        if follower != 0xFF:
            raise ValueError(follower)
        at = zero + 2


def decode_key(data: bytes, start: int = 0) -> object:
    """The key as a plain value: enums come back as `Type.NAME`, dataclasses as tuples.

    For people who look into snapshots; the runtime never needs it.

    Raises:
        Corrupt: no key begins there.
    """
    key_length(data, start)
    try:
        return _decode(data, start)[0]
    except (ArithmeticError, ValueError) as e:
        raise _corrupt(data, start) from e


def _decode(data: bytes, at: int) -> tuple[object, int]:
    tag, end = data[at : at + 1], _end(data, at)
    body = data[at + 1 : end]
    if tag in (_FALSE, _TRUE):
        return tag == _TRUE, end
    if tag == _INT:
        if body[0] == 0x80:
            return int.from_bytes(body[1:], "big") - (1 << 63), end
        if body[0] == 0x81:
            return int.from_bytes(body[3:], "big"), end
        return -int.from_bytes(bytes(255 - b for b in body[3:]), "big"), end
    if tag == _FLOAT:
        ordered = int.from_bytes(body, "big")
        bits = ordered ^ (1 << 63 if ordered >> 63 else 0xFFFFFFFFFFFFFFFF)
        return struct.unpack(">d", bits.to_bytes(8, "big"))[0], end
    if tag == _STR:
        return _unescaped(body).decode(), end
    if tag == _BYTES:
        return _unescaped(body), end
    if tag == _DATE:
        return date.fromordinal(int.from_bytes(body, "big")), end
    if tag == _DATETIME:
        return _EPOCH + (int.from_bytes(body, "big") - (1 << 63)) * _MICROSECOND, end
    if tag == _DECIMAL:
        return Decimal(_unescaped(body).decode()), end
    if tag == _UUID:
        return uuid.UUID(bytes=body), end
    if tag == _ENUM:
        middle = _escaped_end(data, at + 1)
        name = _unescaped(data[at + 1 : middle]).decode()
        return f"{name}.{_unescaped(data[middle:end]).decode()}", end
    at = at + 1 if tag == _TUPLE else _escaped_end(data, at + 1)
    items = []
    while data[at] != 0:
        item, at = _decode(data, at)
        items.append(item)
    return tuple(items), end


def _unescaped(data: bytes) -> bytes:
    return data[:-2].replace(b"\x00\xff", b"\x00")


def rebuild_key(plain: object, kind: Any) -> object:
    """A key as its type made it, from what `decode_key` gives; unchanged where kind is None."""
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return kind[str(plain).rpartition(".")[2]]
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        assert isinstance(plain, tuple), plain
        types = get_type_hints(kind)
        names = [f.name for f in dataclasses.fields(kind)]
        items = [rebuild_key(p, types.get(n)) for n, p in zip(names, plain, strict=True)]
        return kind(**dict(zip(names, items, strict=True)))
    if isinstance(plain, tuple):
        if isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields"):
            return kind(*plain)
        types_of_items = get_args(kind)
        if len(types_of_items) == 2 and types_of_items[1] is Ellipsis:
            types_of_items = types_of_items[:1] * len(plain)
        if len(types_of_items) != len(plain):
            return plain
        return tuple(rebuild_key(p, t) for p, t in zip(plain, types_of_items, strict=True))
    return plain
