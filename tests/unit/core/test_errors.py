import pickle

import pytest

from penstock.core.errors import Corrupt, PenstockError, Rejected, Retryable


@pytest.mark.parametrize("kind", [PenstockError, Rejected, Retryable, Corrupt])
def test_an_error_survives_the_way_between_processes(kind: type[PenstockError]):
    error = pickle.loads(pickle.dumps(kind("what", where="here", fix="do this")))

    assert type(error) is kind
    assert (error.what, error.where, error.fix) == ("what", "here", "do this")


def test_an_error_says_what_where_and_what_to_do():
    assert str(Rejected("no such bucket", where="s3://b", fix="create it")) == (
        "no such bucket\n  where  s3://b\n  do     create it"
    )
    assert str(Corrupt("damaged")) == "damaged"
    assert len({k.exit_code for k in (PenstockError, Rejected, Retryable, Corrupt)}) == 4


def test_a_status_gets_all_three_parts_in_one_line():
    error = Rejected("no snapshot: chk-9", where="s3://bucket/jobs", fix="list them first")
    assert error.in_a_line == "no snapshot: chk-9; s3://bucket/jobs; list them first"
    assert Rejected("no snapshot").in_a_line == "no snapshot"
