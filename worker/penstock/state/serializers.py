"""Serializers: how values of state become bytes, and which bytes of other types can be read.

Values are msgpack, written and read by msgspec under the declared type (docs/reference/values.md).
What msgpack cannot hold, integers beyond 64 bits, goes a slower way under a first byte that no
msgpack value has; so the common way costs nothing for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

import msgspec
import typing_extensions
from msgspec import msgpack

from penstock.core.errors import Corrupt, Rejected
from penstock.state.schemas import readable
from penstock.state.shapes import Shape, model_fields, shape_of

MSGPACK = "msgpack/1"

_LARGE = b"\xc1"
"""First byte of a value with an integer beyond 64 bits; msgpack itself never uses it."""

_LARGE_INT = 1
_PAIRS = 2
"""Extension types below `_LARGE`: a signed big-endian integer; a dict as its list of pairs."""

_T = TypeVar("_T")


class CustomSerializer(Protocol[_T]):
    """What an author gives as `serializer=`. A version is read as long as he likes."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> int: ...
    def encode(self, value: _T, /) -> bytes: ...
    def decode(self, data: bytes, version: int, /) -> _T: ...


@dataclass(frozen=True, slots=True)
class ValueSerializer:
    """Values of one declared type as bytes and back.

    `accepts(value)` is exact: what it accepts is decoded to an equal value of the same type (where
    a float is declared an int is accepted, and read back as a float). `exact_class`: a value whose
    class is exactly this one is accepted. `immutable`: values never need a copy.

    `encode` raises Rejected for what bytes cannot hold though its class is right; `decode` raises
    Corrupt for what is not of this type. Of scalars that need no help from Python, both are msgspec's
    own functions with msgspec's own errors.
    """

    name: str
    schema: str
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]
    accepts: Callable[[Any], bool]
    exact_class: type | None
    immutable: bool


def serializer_for(
    type_form: Any, *, custom: CustomSerializer[Any] | None = None, where: str | None = None
) -> ValueSerializer:
    """The serializer of a declared type, or an author's own one made ready for use.

    Raises:
        Rejected: values of this type cannot be stored exactly; it says what to declare instead.
    """
    if custom is not None:
        return _wrapped(custom, where)
    shape = shape_of(type_form, where=where)
    if shape.named_keys and shape.hooked:
        raise Rejected(
            f"{shape.schema} has records as keys of a dict beside pydantic models",
            where=where,
            fix="use scalars, tuples or NamedTuple as keys, or dataclasses instead of the models",
        )
    codec = _Codec(type_form, shape, where)
    # Records as keys cannot go the slower way of large integers.
    fits = codec.fits if shape.named_keys and shape.big else shape.accepts
    return ValueSerializer(
        name=MSGPACK,
        schema=shape.schema,
        encode=codec.fast_encode if shape.exact_class and not shape.big else codec.encode,
        # A float may have been written as an int, which may have been a large one.
        decode=codec.fast_decode if shape.exact_class not in (None, int, float) else codec.decode,
        accepts=fits,
        exact_class=shape.exact_class,
        immutable=shape.immutable,
    )


def incompatibility(
    serializer: ValueSerializer, *, name: str, schema: str, where: str | None = None
) -> Rejected | None:
    """None when values stored under another name and schema can be read by this serializer.

    Readable are: the same type; a record with further optional fields; a wider type (`int` as
    `float`, `T` as `T | None`, an enum with more members). Otherwise the error that says why not,
    for the caller to raise or to collect.
    """
    old_kind, new_kind = name.rpartition("/")[0], serializer.name.rpartition("/")[0]
    if old_kind != new_kind:
        return Rejected(
            f"state was written by serializer {name} as {schema}, "
            f"the code now reads {serializer.name} as {serializer.schema}",
            where=where,
            fix="go back to the old serializer, or write the state anew under another name",
        )
    if name != serializer.name and _version(name) > _version(serializer.name):
        return Rejected(
            f"state was written by the newer serializer {name}, the code has {serializer.name}",
            where=where,
            fix="run the newer code",
        )
    if schema == serializer.schema:
        return None
    problem = readable(schema, serializer.schema)
    if problem is None:
        return None
    return Rejected(
        f"state was written as {schema} and cannot be read as {serializer.schema}: {problem}",
        where=where,
        fix="go back to the old type, or declare the new one under another name",
    )


def _version(name: str) -> int:
    return int(name.rpartition("/")[2])


class _Codec:
    """msgspec under one declared type, with the slower way for what does not fit."""

    def __init__(self, form: Any, shape: Shape, where: str | None) -> None:
        self.schema = shape.schema
        self.accepts = shape.accepts
        self.form = form
        # Equal values that may be keys of a map state must have equal bytes: sets are sorted.
        self.order: Literal["deterministic"] | None = "deterministic" if shape.hashable else None
        self.fast_encode = msgpack.Encoder(enc_hook=_lower, order=self.order).encode
        self.fast_decode = _decoder(form, shape, where).decode

    def encode(self, value: Any) -> bytes:
        try:
            return self.fast_encode(value)
        except OverflowError:
            return self._encode_large(value)
        except (TypeError, ValueError, msgspec.MsgspecError) as e:
            raise self._refused(value, e) from e

    def decode(self, data: bytes) -> Any:
        try:
            return self.fast_decode(data)
        except (msgspec.MsgspecError, ValueError) as e:
            if data[:1] == _LARGE:
                return self._decode_large(data)
            raise self._corrupt(data, e) from e

    def fits(self, value: Any) -> bool:
        """Whether a value is accepted and has no integer beyond 64 bits."""
        try:
            return self.accepts(value) and bool(self.fast_encode(value))
        except OverflowError:
            return False

    def _encode_large(self, value: Any) -> bytes:
        try:
            plain = msgspec.to_builtins(
                value, builtin_types=(bytes,), enc_hook=_lower, order=self.order
            )
            return _LARGE + msgpack.encode(_without_large(plain))
        except (OverflowError, TypeError, ValueError, msgspec.MsgspecError) as e:
            raise self._refused(value, e) from e

    def _decode_large(self, data: bytes) -> Any:
        try:
            plain = msgpack.decode(data[1:], ext_hook=_large)
            return msgspec.convert(plain, self.form, dec_hook=_raise)
        except (msgspec.MsgspecError, ValueError) as e:
            raise self._corrupt(data, e) from e

    def _refused(self, value: Any, cause: Exception) -> Rejected:
        return Rejected(
            f"a value cannot be written as {self.schema}: {cause}",
            where=repr(value)[:80],
            fix="give the state a value of its declared type",
        )

    def _corrupt(self, data: bytes, cause: Exception) -> Corrupt:
        return Corrupt(f"stored bytes are not {self.schema}: {cause}", where=data[:32].hex())


def _decoder(form: Any, shape: Shape, where: str | None) -> msgpack.Decoder[Any]:
    try:
        return msgpack.Decoder(form, dec_hook=_raise)
    except (TypeError, ValueError) as e:
        raise Rejected(
            f"the alternatives of {shape.schema} cannot be told apart in bytes: {e}",
            where=where,
            fix="use one record with optional fields, tagged msgspec.Struct classes, "
            "or give serializer=",
        ) from e


def _lower(value: Any) -> Any:
    """A pydantic model as the dict of its fields."""
    fields = model_fields(value.__class__)
    if not fields:
        raise TypeError(f"{value.__class__.__name__} is not part of the declared type")
    return {name: getattr(value, name) for name in fields}


def _raise(kind: Any, plain: Any) -> Any:
    """A pydantic model from the dict of its fields; they were checked when it was made."""
    record = msgspec.convert(plain, _twin(kind), dec_hook=_raise)
    return kind.model_construct(
        **{
            name: value
            for name in record.__struct_fields__
            if (value := getattr(record, name)) is not msgspec.UNSET
        }
    )


_twins: dict[type, type[msgspec.Struct]] = {}


def _twin(model: type) -> type[msgspec.Struct]:
    """A struct with the fields of a pydantic model, which msgspec can fill with the right types."""
    twin = _twins.get(model)
    if twin is None:
        hints = typing_extensions.get_type_hints(model)
        twin = _twins[model] = msgspec.defstruct(
            model.__name__,
            [
                (name, hints[name])
                if field.is_required()
                else (name, hints[name] | msgspec.UnsetType, msgspec.UNSET)
                for name, field in model_fields(model).items()
            ],
            kw_only=True,
        )
    return twin


def _without_large(plain: Any) -> Any:
    """The same with integers beyond 64 bits as extensions; a dict with such keys as its pairs."""
    if plain.__class__ is int and not -(1 << 63) <= plain < 1 << 63:
        size = plain.bit_length() // 8 + 1
        return msgpack.Ext(_LARGE_INT, plain.to_bytes(size, "big", signed=True))
    if isinstance(plain, list | tuple):
        return [_without_large(item) for item in plain]
    if isinstance(plain, dict):
        pairs = [[_without_large(key), _without_large(item)] for key, item in plain.items()]
        return msgpack.Ext(_PAIRS, msgpack.encode(pairs))
    return plain


def _large(code: int, data: memoryview) -> Any:
    if code == _LARGE_INT:
        return int.from_bytes(data, "big", signed=True)
    if code == _PAIRS:
        pairs = msgpack.decode(data, ext_hook=_large)
        return {_hashable(key): item for key, item in pairs}
    raise ValueError(f"extension {code} is not known")


def _hashable(key: Any) -> Any:
    return tuple(map(_hashable, key)) if key.__class__ is list else key


def _wrapped(custom: CustomSerializer[Any], where: str | None) -> ValueSerializer:
    """An author's serializer. Each value carries its version, as rows outlive upgrades."""
    if not 0 <= custom.version < 1 << 16:
        raise Rejected(
            f"version {custom.version} of serializer {custom.name} is not between 0 and 65535",
            where=where,
            fix="count versions from 1",
        )
    prefix = custom.version.to_bytes(2, "big")

    def encode(value: Any) -> bytes:
        return prefix + custom.encode(value)

    def decode(data: bytes) -> Any:
        return custom.decode(data[2:], int.from_bytes(data[:2], "big"))

    return ValueSerializer(
        name=f"{custom.name}/{custom.version}",
        schema=f"custom {custom.name}",
        encode=encode,
        decode=decode,
        accepts=lambda _: True,
        exact_class=None,
        immutable=False,
    )
