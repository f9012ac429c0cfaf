import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.keys import encode_key
from penstock.core.rows import (
    NO_NAMESPACE,
    group_bounds,
    group_of,
    group_width,
    list_index,
    prefix_length,
    row_prefix,
)

groups = st.sampled_from([1, 128, 129, 32768]).flatmap(
    lambda G: st.tuples(st.just(group_width(G)), st.integers(0, G - 1), st.just(G))
)
keys = st.integers() | st.text() | st.tuples(st.text(), st.integers())


@pytest.mark.parametrize(("G", "width"), [(1, 1), (128, 1), (129, 2), (32768, 2)])
def test_the_group_takes_one_byte_up_to_128_groups(G: int, width: int):
    assert group_width(G) == width


@given(groups, keys, st.binary(max_size=12))
def test_a_row_tells_its_group_and_where_the_sub_key_begins(
    group: tuple[int, int, int], key: object, sub_key: bytes
):
    width, number, _ = group
    prefix = row_prefix(number, encode_key(key), width=width)
    row = prefix + sub_key

    assert group_of(row, width=width) == number
    assert prefix_length(row, width=width) == len(prefix)
    assert row[width : -len(sub_key) - 1 if sub_key else -1] == encode_key(key)


@given(groups, keys, keys, st.binary(max_size=5))
def test_a_scan_by_prefix_never_meets_another_key(
    group: tuple[int, int, int], a: object, b: object, sub_key: bytes
):
    width, number, _ = group
    one = row_prefix(number, encode_key(a), width=width)
    other = row_prefix(number, encode_key(b), width=width) + sub_key
    if encode_key(a) != encode_key(b):
        assert not other.startswith(one)


@given(groups, st.data(), keys)
def test_bounds_hold_exactly_the_rows_of_their_groups(
    group: tuple[int, int, int], data: st.DataObject, key: object
):
    width, number, G = group
    start = data.draw(st.integers(0, G - 1))
    stop = data.draw(st.integers(start, G))
    low, high = group_bounds(start, stop, width=width)
    row = row_prefix(number, encode_key(key), width=width)

    assert (low <= row < high) == (start <= number < stop)


def test_list_elements_sort_in_order_of_insertion():
    indexes = [0, 1, 255, 256, 2**32, 2**64 - 1]
    assert sorted(map(list_index, indexes)) == [list_index(i) for i in indexes]
    assert {len(list_index(i)) for i in indexes} == {8}


def test_the_void_namespace_is_a_key_so_that_rows_parse_the_same_with_and_without_one():
    assert encode_key(False) == NO_NAMESPACE
