"""The protocol itself, exhaustively within small bounds; `README.md` says what is modelled.

`python tests/model/check.py` runs all of it, which takes minutes. Here: that its sentences are
needed (a switch takes one away, the search finds the hole), and that one scenario holds.
"""

import importlib.util
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def check():
    """The search; it imports `model`, which lies beside it."""
    sys.path.insert(0, str(HERE))
    spec = importlib.util.spec_from_file_location("penstock_model_check", HERE / "check.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(HERE))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hole", "says"),
    [
        ("NO_LISTING_AFTER_CREATE", "4:"),
        ("ABSENT_MEANS_FAILED", "3:"),
        ("BASE_AS_LAST_HEARD", "3:"),
        ("CANCEL_WITHOUT_COMMITS", "5:"),
        ("HELD_IS_FORGOTTEN_AFTER_A_CANCEL", "2:"),
    ],
)
def test_without_this_sentence_the_protocol_breaks(check, hole: str, says: str):
    _, bounds = check.SCENARIOS[check.HOLES[hole]]
    assert check.explore(check.Model((hole,), **bounds))["bad"].startswith(says)


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["fence", "cancel"])
def test_within_its_bounds_the_protocol_holds(check, scenario: str):
    _, bounds = check.SCENARIOS[scenario]
    result = check.explore(check.Model((), **bounds))
    assert result["bad"] is None
    assert result["states"] > 20_000
