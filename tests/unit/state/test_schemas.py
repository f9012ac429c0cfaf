"""Which older state newer code reads."""

import pytest

from penstock.core.descriptors import StateDescriptor, StateKind
from penstock.state.schemas import is_readable


def _state(schema: str, serializer: str = "msgpack/1", keys: str | None = None) -> StateDescriptor:
    return StateDescriptor("seen", StateKind.MAP, serializer, schema, keys)


@pytest.mark.parametrize(
    ("old", "new", "readable"),
    [
        (_state("int"), _state("int"), True),
        (_state("int"), _state("float"), True),
        (_state("int"), _state("int | None"), True),
        (_state("float"), _state("int"), False),
        (_state("int", keys="str"), _state("float", keys="str"), True),
        (_state("int", keys="int"), _state("int", keys="float"), False),
        (_state("int", "scalar/1"), _state("int"), False),
        (_state("FileSplit v1", "json/1"), _state("FileSplit v1", "json/1"), True),
        (_state("FileSplit v1", "json/1"), _state("FileSplit v2", "json/1"), False),
        (_state("Cart", "cart/1"), _state("Cart", "cart/2"), True),
        (_state("Cart", "cart/2"), _state("Cart", "cart/1"), False),
    ],
)
def test_newer_code_reads_what_is_the_same_or_narrower(old, new, readable):
    assert is_readable(old, new) is readable
