"""What a process finds in a pod, and what it leaves behind when it ends."""

import json
from pathlib import Path

import pytest

from penstock.core.errors import Rejected
from penstock.runtime import pod, termination


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        *(pod.MANIFEST_VARIABLE, pod.TOKEN_VARIABLE, pod.TOKEN_FILE_VARIABLE, pod.LOG_VARIABLE),
        *(pod.POD_IP_VARIABLE, pod.COORDINATOR_VARIABLE, termination.FILE_VARIABLE),
    ):
        monkeypatch.delenv(name, raising=False)


def test_without_a_manifest_a_process_is_in_a_pod() -> None:
    found = pod.surroundings(None)
    assert found.is_pod
    assert found.manifest == Path("/etc/penstock/streamjob.yaml")
    assert (found.host, found.log) == ("0.0.0.0", "json")


def test_with_a_manifest_it_is_on_a_laptop_and_listens_for_nobody_else() -> None:
    found = pod.surroundings(Path("streamjob.yaml"))
    assert not found.is_pod
    assert (found.host, found.address, found.log) == ("127.0.0.1", None, "plain")


def test_a_pod_tells_its_own_address_and_listens_in_its_family(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(pod.POD_IP_VARIABLE, "10.1.2.3")
    assert pod.surroundings(None).address == "10.1.2.3"
    monkeypatch.setenv(pod.POD_IP_VARIABLE, "fd00::17")
    found = pod.surroundings(None)
    assert (found.host, found.address) == ("::", "fd00::17")


def test_an_unknown_style_of_log_lines_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(pod.LOG_VARIABLE, "xml")
    with pytest.raises(Rejected, match="xml"):
        pod.surroundings(None)


def test_the_token_comes_from_the_environment_before_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    monkeypatch.setenv(pod.TOKEN_FILE_VARIABLE, str(file))
    with pytest.raises(Rejected, match="no token"):
        pod.token()
    file.write_text("correct horse\n")
    assert pod.token() == "correct horse"
    monkeypatch.setenv(pod.TOKEN_VARIABLE, "battery staple")
    assert pod.token() == "battery staple"


@pytest.mark.parametrize(
    ("name", "number"),
    [("wordcount-0", 0), ("word-count-7-12", 12), ("wordcount-3.wordcount.prod.svc", 3)],
)
def test_a_workers_number_is_at_the_end_of_its_host_name(name: str, number: int) -> None:
    assert pod.ordinal(name) == number


@pytest.mark.parametrize("name", ["laptop", "wordcount-", "wordcount-7f9"])
def test_a_host_name_without_a_number_is_refused(name: str) -> None:
    with pytest.raises(Rejected, match="number"):
        pod.ordinal(name)


def test_the_coordinator_is_named_by_flag_or_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Rejected, match="no coordinator"):
        pod.coordinator_address(None)
    monkeypatch.setenv(pod.COORDINATOR_VARIABLE, "wordcount-coordinator:6123")
    assert pod.coordinator_address(None) == ("wordcount-coordinator", 6123)
    assert pod.coordinator_address("[::1]:7") == ("::1", 7)
    with pytest.raises(Rejected, match="HOST:PORT"):
        pod.coordinator_address("wordcount-coordinator")


@pytest.mark.parametrize("character", ["x", "é", "🦑", '"'])
def test_a_long_message_is_cut_to_what_kubernetes_keeps_and_stays_json(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, character: str
) -> None:
    file = tmp_path / "message"
    monkeypatch.setenv(termination.FILE_VARIABLE, str(file))
    error = Rejected("job() raised " + character * 9000, where="\n" * 3000, fix="mend it")
    termination.leave(termination.error_body(error))
    written = file.read_bytes()
    assert 2000 < len(written) <= 4096
    told = json.loads(written)
    assert told["what"].startswith("job() raised ")
    assert (told["fix"], told["exitCode"]) == ("mend it", 2)


def test_where_no_message_is_looked_for_none_is_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(termination, "_FILE", str(tmp_path / "termination-log"))
    termination.leave(termination.error_body(Rejected("it is wrong")))
    assert list(tmp_path.iterdir()) == []
