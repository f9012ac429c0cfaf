"""How records look as bytes, a line each: text, JSON, CSV.

Anything with `decode` is a format to read, anything with `encode` one to write. The optional
`decode_block` and `encode_block` do many lines in one call; they may change the speed, never the
result.
"""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterator, Sequence
from functools import cached_property
from types import NoneType, UnionType
from typing import Any, Generic, Protocol, TypeVar, Union, get_args, get_origin, get_type_hints
from typing import overload as _overload

from typing_extensions import TypeForm

from penstock.core.errors import Rejected

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
T_contra = TypeVar("T_contra", contravariant=True)

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_STATELESS = {"utf-8", "ascii", "iso8859-1"}  # names of `codecs.lookup`


class Reads(Protocol[T_co]):
    """A format that records can be read from."""

    def decode(self, data: bytes, /) -> T_co:
        """The record of one line, which comes without its line break.

        Raises:
            ValueError: the line is none of this format.
        """
        ...


class Writes(Protocol[T_contra]):
    """A format that records can be written in."""

    def encode(self, record: T_contra, /) -> bytes:
        """The line of one record, without a line break."""
        ...


class Text:
    """Each line is a `str`. A record with line breaks in it is written as several lines."""

    record_type = str
    suffix = ".txt"
    keeps_blank_lines = True

    def __init__(self, encoding: str = "utf-8") -> None:
        import codecs

        try:
            self._encoding = codecs.lookup(encoding).name
        except LookupError as e:
            raise Rejected(f"no such text encoding: {encoding!r}", where="formats.Text") from e
        if "\n".encode(encoding) != b"\n":
            raise Rejected(
                f"lines cannot be told apart in {encoding!r}",
                where="formats.Text",
                fix="use an encoding in which a line break is one byte, such as utf-8",
            )

    def __repr__(self) -> str:
        return "Text"

    def decode(self, data: bytes, /) -> str:
        """The line as text; a carriage return at its end goes."""
        return data.removesuffix(b"\r").decode(self._encoding)

    def decode_block(self, block: bytes, /) -> list[str]:
        """The records of lines joined by line breaks."""
        if self._encoding not in _STATELESS:
            return [self.decode(line) for line in block.split(b"\n")]
        lines = block.decode(self._encoding).split("\n")
        return [line.removesuffix("\r") for line in lines] if b"\r" in block else lines

    def encode(self, record: str, /) -> bytes:
        """The text as bytes."""
        return record.encode(self._encoding)

    def encode_block(self, records: Sequence[str], /) -> bytes:
        """The records as lines, each with its line break."""
        return ("\n".join(records) + "\n").encode(self._encoding)


class Json(Generic[T_co]):
    """One JSON value per line, of the given type, or any; written from any serializable value.

    Types are those of msgspec (dataclasses, datetimes, Decimal, enums, tuples, sets …) and pydantic
    models. Blank lines are no records.
    """

    suffix = ".jsonl"
    keeps_blank_lines = False

    @_overload
    def __init__(self: Json[Any]) -> None: ...
    @_overload
    def __init__(self, type: TypeForm[T_co]) -> None: ...
    def __init__(self, type: Any = Any) -> None:
        self.record_type = None if type is Any else type
        self._type = type

    def __repr__(self) -> str:
        return "Json" if self.record_type is None else f"Json({_type_name(self._type)})"

    def decode(self, data: bytes, /) -> T_co:
        """The value in one line."""
        record: T_co = self._decoder.decode(data)
        return record

    def decode_block(self, block: bytes, /) -> list[T_co]:
        """The records of lines joined by line breaks, none of them blank."""
        # As one array, not by msgspec's decode_lines: that takes two values in a line for two lines.
        records: list[T_co] = self._block_decoder.decode(b"[%b]" % block.replace(b"\n", b",\n"))
        return records

    def encode(self, record: object, /) -> bytes:
        """The value as JSON in one line."""
        with _encoding_errors(record, "JSON"):
            line: bytes = self._encoder.encode(record)
        return line

    def encode_block(self, records: Sequence[object], /) -> bytes:
        """The records as lines, each with its line break."""
        with _encoding_errors(records, "JSON"):
            block: bytes = self._encoder.encode_lines(records)
        return block

    @cached_property
    def _decoder(self) -> Any:
        import msgspec

        return msgspec.json.Decoder(self._type, dec_hook=_from_plain)

    @cached_property
    def _block_decoder(self) -> Any:
        import msgspec

        return msgspec.json.Decoder(list[self._type], dec_hook=_from_plain)  # type: ignore[name-defined]

    @cached_property
    def _encoder(self) -> Any:
        import msgspec

        return msgspec.json.Encoder(enc_hook=_to_plain)


class Csv(Generic[T_co]):
    """Cells separated by a delimiter, a record per line, for a type with named fields or a tuple.

    With a header, the first line of each file names the columns, in any order and with more of them
    than the type has fields; without, they are the type's fields in order. A tuple goes by position
    in both cases. An empty cell is None where the type allows None. Blank lines are no records.

    A quoted cell may hold line breaks: in files such a record takes several lines. A quote that
    is never closed is told with the line where its record begins.
    """

    suffix = ".csv"
    keeps_blank_lines = False

    def __init__(self, type: TypeForm[T_co], *, header: bool = True, delimiter: str = ",") -> None:
        if len(delimiter) != 1 or delimiter in '"\r\n':
            raise Rejected(
                f"{delimiter!r} cannot separate cells",
                where="formats.Csv",
                fix='use one character, such as "," or ";"',
            )
        self.record_type = type
        self.header = header
        self._delimiter = delimiter
        self._columns: Sequence[str] | None = None

    def __repr__(self) -> str:
        return f"Csv({_type_name(self.record_type)})"

    def with_header(self, line: bytes, /) -> Csv[T_co]:
        """The same format for a file that begins with this line."""
        same: Csv[T_co] = Csv(self.record_type, header=self.header, delimiter=self._delimiter)
        cells = self._rows(line.removeprefix(_BYTE_ORDER_MARK))[0]
        same._columns = [cell.strip() for cell in cells]
        return same

    def header_line(self) -> bytes:
        """The line that files are to begin with.

        Raises:
            Rejected: the type has no named fields.
        """
        if self._fields is None:
            raise Rejected(
                f"{_type_name(self.record_type)} has no named fields to make a header of",
                where="formats.Csv",
                fix="write a dataclass, or say header=False",
            )
        return self._lines([self._fields]).removesuffix(b"\n")

    def lines_of(self, lines: Sequence[bytes], start: int, /) -> int | None:
        """How many lines the record takes that begins with this one; None: more than there are."""
        if b'"' not in lines[start]:
            return 1
        taken = 0
        is_over = False

        def rest() -> Iterator[str]:
            nonlocal taken, is_over
            for index in range(start, len(lines)):
                taken += 1
                yield lines[index].decode(errors="replace") + "\n"
            is_over = True

        try:
            next(csv.reader(rest(), delimiter=self._delimiter, strict=True))
        except csv.Error:
            # Decoding these lines then says what is wrong with them.
            return None if is_over else taken
        return taken

    def decode(self, data: bytes, /) -> T_co:
        """The record of one line, or of the several that it takes."""
        records = self.decode_block(data)
        if len(records) != 1:
            raise ValueError(f"{len(records)} records in one")
        return records[0]

    def decode_block(self, block: bytes, /) -> list[T_co]:
        """The records of lines joined by line breaks, none of them blank."""
        import msgspec

        rows = self._rows(block)
        by_position = self._fields is None and (self._is_tuple or self._columns is None)
        plain: Sequence[object] = rows if by_position else self._by_name(rows)
        wanted = list[self.record_type]  # type: ignore[name-defined]
        records: list[T_co] = msgspec.convert(plain, wanted, strict=False, dec_hook=_from_plain)
        return records

    def encode(self, record: object, /) -> bytes:
        """The record as one line."""
        return self.encode_block((record,)).removesuffix(b"\n")

    def encode_block(self, records: Sequence[object], /) -> bytes:
        """The records as lines, each with its line break."""
        import msgspec

        with _encoding_errors(records, "CSV"):
            plain = msgspec.to_builtins(list(records), enc_hook=_to_plain, str_keys=True)
        return self._lines([self._row(record) for record in plain])

    def _row(self, plain: Any) -> list[object]:
        if isinstance(plain, dict):
            return [_cell(plain.get(field)) for field in self._fields or plain]
        if isinstance(plain, (list, tuple)):
            return [_cell(value) for value in plain]
        raise Rejected(
            f"a {type(plain).__name__} has no cells: {_shortened(plain)}",
            where="formats.Csv",
            fix="write a dataclass, a tuple or a dict",
        )

    def _rows(self, block: bytes) -> list[list[str]]:
        # Split at line feeds alone: other line breaks are characters of a cell.
        lines = io.StringIO(block.decode(), newline="\n")
        try:
            return list(csv.reader(lines, delimiter=self._delimiter, strict=True))
        except csv.Error as e:
            what = "a quoted cell does not end" if str(e) == "unexpected end of data" else str(e)
            raise ValueError(what) from e

    def _by_name(self, rows: list[list[str]]) -> Sequence[object]:
        columns = self._columns or self._fields or ()
        named = [
            {
                column: None if cell == "" and column in self._nullable else cell
                for column, cell in zip(columns, row, strict=True)
            }
            for row in _of_width(rows, len(columns))
        ]
        if self._is_tuple:
            # Positions of a NamedTuple; what the file leaves out may only be at the end.
            return [[row[field] for field in self._fields or () if field in row] for row in named]
        return named

    def _lines(self, rows: Sequence[Sequence[object]]) -> bytes:
        target = io.StringIO()
        csv.writer(target, delimiter=self._delimiter, lineterminator="\n").writerows(rows)
        return target.getvalue().encode()

    @cached_property
    def _is_tuple(self) -> bool:
        kind = get_origin(self.record_type) or self.record_type
        return isinstance(kind, type) and issubclass(kind, (tuple, list))

    @cached_property
    def _fields(self) -> Sequence[str] | None:
        return _field_names(self.record_type)

    @cached_property
    def _nullable(self) -> frozenset[str]:
        """Fields that may be None."""
        if self._fields is None:
            return frozenset()
        hints = get_type_hints(get_origin(self.record_type) or self.record_type)
        return frozenset(name for name, hint in hints.items() if _allows_none(hint))


def _of_width(rows: list[list[str]], width: int) -> list[list[str]]:
    for row in rows:
        if len(row) != width:
            raise ValueError(f"{len(row)} cells where {width} are expected")
    return rows


def _field_names(type_form: Any) -> Sequence[str] | None:
    kind = get_origin(type_form) or type_form
    if dataclasses.is_dataclass(kind):
        return [field.name for field in dataclasses.fields(kind) if field.init]
    for attribute in ("_fields", "__struct_encode_fields__"):  # NamedTuple, msgspec.Struct
        if names := getattr(kind, attribute, None):
            return list(names)
    if hasattr(kind, "model_fields"):  # pydantic
        return list(kind.model_fields)
    if hasattr(kind, "__total__"):  # TypedDict
        return list(get_type_hints(kind))
    return None


def _allows_none(hint: Any) -> bool:
    return get_origin(hint) in (Union, UnionType) and NoneType in get_args(hint)


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (dict, list, tuple)):
        raise Rejected(
            f"a cell cannot hold {_shortened(value)}",
            where="formats.Csv",
            fix="write records of plain fields, or use formats.Json",
        )
    return value


def _from_plain(kind: Any, value: object) -> object:
    """Values of types that msgspec does not know: pydantic models."""
    if hasattr(kind, "model_validate"):
        return kind.model_validate(value)
    raise TypeError(f"{_type_name(kind)} cannot be read")


def _to_plain(value: Any) -> object:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} cannot be written: {_shortened(value)}")


class _encoding_errors:  # noqa: N801 – used like a function
    """Inside, a value that msgspec refuses becomes Rejected. A class, because it is on the hot path."""

    def __init__(self, records: object, form: str) -> None:
        self._records = records
        self._form = form

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, at: object) -> None:
        if isinstance(error, (TypeError, ValueError, OverflowError)):
            raise Rejected(
                f"a record cannot be written as {self._form}: {error}",
                where=_shortened(self._records),
                fix="map it to plain values, dataclasses or pydantic models first",
            ) from error


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else text[:97] + "…"


def _type_name(type_form: Any) -> str:
    return type_form.__name__ if isinstance(type_form, type) else str(type_form)
