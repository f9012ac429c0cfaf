"""What importing Penstock costs: tests of functions begin at once, whatever else is installed."""

import json
import subprocess
import sys

import pytest

HEAVY = {"rocksdict", "boto3", "aiohttp", "confluent_kafka", "pyarrow", "pydantic", "asyncio"}


def loaded_after(statement: str) -> set[str]:
    code = f"import json, sys; {statement}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


@pytest.mark.parametrize(
    "statement",
    [
        "import penstock",
        "from penstock import sources, sinks, formats, aggregates",
        "import penstock.testing",
    ],
)
def test_importing_what_authors_import_loads_nothing_heavy(statement):
    assert loaded_after(statement) & HEAVY == set()


def test_a_harness_on_the_heap_loads_no_rocksdb_and_one_on_rocksdb_does():
    function = "type('F', (penstock.KeyedFunction,), {'process': lambda s, r, c: None})()"
    begin = "import penstock, penstock.testing;"
    assert "rocksdict" not in loaded_after(f"{begin} penstock.testing.harness({function})")
    on_rocks = loaded_after(f"{begin} penstock.testing.harness({function}, backend='rocksdb')")
    assert "rocksdict" in on_rocks


def test_the_public_names_are_there_and_no_others_are_promised():
    import penstock

    assert all(hasattr(penstock, name) for name in penstock.__all__)
    assert sorted(penstock.__all__) == penstock.__all__
