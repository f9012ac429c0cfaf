"""What an S3 store says about buckets, credentials and servers that are not as they should be."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import pytest

from penstock.core.errors import PenstockError, Rejected, Retryable
from penstock.storage.location import check_writable
from penstock.storage.s3 import S3Store
from penstock.storage.store import Store


def calls(store: Store, file: Path) -> list[Callable[[], object]]:
    """Every operation of a store."""
    file.write_bytes(b"content")
    return [
        lambda: store.put("job/a", b""),
        lambda: store.put_if_absent("job/a", b""),
        lambda: store.get("job/a"),
        lambda: store.length("job/a"),
        lambda: list(store.list("job/")),
        lambda: store.delete(["job/a"]),
        lambda: store.upload("job/a", file),
        lambda: store.download("job/a", file.with_name("fetched")),
        lambda: check_writable(store),
    ]


def refusal(kind: type[PenstockError], call: Callable[[], object]) -> PenstockError:
    with pytest.raises(kind) as e:
        call()
    assert str(e.value.where).startswith("s3://")
    assert e.value.fix
    assert e.value.__cause__ is not None
    return e.value


def test_a_missing_bucket_is_rejected_by_its_name(s3_endpoint: str, tmp_path: Path):
    store = S3Store("penstock-no-such-bucket", "x")
    for call in calls(store, tmp_path / "file"):
        assert "bucket penstock-no-such-bucket does not exist" in refusal(Rejected, call).what


def test_a_missing_bucket_is_rejected_for_a_large_file_too(s3_endpoint: str, tmp_path: Path):
    (tmp_path / "large").write_bytes(bytes(9 << 20))
    store = S3Store("penstock-no-such-bucket")

    e = refusal(Rejected, lambda: store.upload("job/a", tmp_path / "large"))
    assert "does not exist" in e.what


def test_a_bucket_name_that_cannot_be_is_rejected(s3_endpoint: str):
    refusal(Rejected, lambda: S3Store("no such/bucket!").put("a", b""))


@pytest.mark.parametrize("variable", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_refused_credentials_are_rejected(
    real_s3: str,
    new_bucket: Callable[[], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
):
    bucket = new_bucket()
    monkeypatch.setenv(variable, "wrong")
    for call in calls(S3Store(bucket), tmp_path / "file"):
        assert "credentials are refused" in refusal(Rejected, call).what


def test_missing_credentials_are_rejected(
    s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))

    e = refusal(Rejected, lambda: S3Store("bucket").put("a", b""))
    assert "credentials are missing" in e.what
    assert "AWS_ACCESS_KEY_ID" in str(e.fix)


def test_stores_of_different_prefixes_do_not_see_each_other(new_bucket: Callable[[], str]):
    bucket = new_bucket()
    one, ten, all_ = S3Store(bucket, "one"), S3Store(bucket, "/one0/"), S3Store(bucket)
    one.put("a", b"1")
    ten.put("a", b"10")

    assert [f.path for f in one.list("")] == ["a"]
    assert [f.path for f in ten.list("")] == ["a"]
    assert [f.path for f in all_.list("")] == ["one/a", "one0/a"]
    assert (one.url, ten.url, all_.url) == (
        f"s3://{bucket}/one",
        f"s3://{bucket}/one0",
        f"s3://{bucket}",
    )


def test_a_folder_mark_made_by_a_console_is_no_object(
    s3_endpoint: str, new_bucket: Callable[[], str]
):
    bucket = new_bucket()
    client = boto3.Session().client("s3", endpoint_url=s3_endpoint)
    client.put_object(Bucket=bucket, Key="job/", Body=b"")
    client.put_object(Bucket=bucket, Key="job/a", Body=b"")

    assert [f.path for f in S3Store(bucket).list("")] == ["job/a"]
    assert [f.path for f in S3Store(bucket, "job").list("")] == ["a"]


# A server that answers as told: real ones cannot be made to fail on demand.


@dataclass
class Script:
    """Answers in order, the last one for ever.

    Each a status with an error's code (or, with 200, a body), or a silence, or a hang-up.
    """

    answers: list[tuple[int, str] | str]
    requests: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    url: str = ""
    silence_over: threading.Event = field(default_factory=threading.Event)

    def next(self, request: str) -> tuple[int, str] | str:
        self.requests.append(request)
        return self.answers[min(len(self.requests), len(self.answers)) - 1]


@contextmanager
def server_that_answers(*answers: tuple[int, str] | str) -> Iterator[Script]:
    script = Script(list(answers))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            script.bodies.append(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            answer = script.next(f"{self.command} {self.path}")
            if answer == "silence":
                script.silence_over.wait(30)
            if isinstance(answer, str):
                self.close_connection = True
                return
            status, text = answer
            if status != 200:
                text = f"<Error><Code>{text}</Code><Message>told so</Message></Error>"
            body = b"" if self.command == "HEAD" else text.encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    script.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield script
    finally:
        script.silence_over.set()
        server.shutdown()
        server.server_close()
        thread.join(10)


def store_at(url: str, **settings: float) -> S3Store:
    return S3Store("bucket", endpoint_url=url, connect_timeout_s=1, **settings)


@pytest.fixture(autouse=True)
def _some_credentials(s3_endpoint: str):
    """The scripted server asks for none, but boto3 signs what it sends."""


def test_a_closed_port_is_retryable(tmp_path: Path):
    with server_that_answers((200, "")) as script:
        closed = script.url
    for call in calls(store_at(closed, tries=1), tmp_path / "file"):
        assert "did not answer" in refusal(Retryable, call).what


def test_a_host_that_does_not_exist_is_retryable():
    e = refusal(Retryable, lambda: store_at("http://penstock.invalid:9", tries=1).get("a"))
    assert "AWS_ENDPOINT_URL" in str(e.fix)


def test_a_server_that_stays_silent_is_retryable_after_the_time_out(tmp_path: Path):
    with server_that_answers("silence") as script:
        for call in calls(store_at(script.url, read_timeout_s=0.1, tries=1), tmp_path / "file"):
            refusal(Retryable, call)


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        ((503, "SlowDown"), Retryable, "cannot do it now"),
        ((500, "InternalError"), Retryable, "cannot do it now"),
        ((502, ""), Retryable, "cannot do it now"),
        ((429, "TooManyRequests"), Retryable, "cannot do it now"),
        ((403, "AccessDenied"), Rejected, "credentials are refused"),
        ((403, "InvalidAccessKeyId"), Rejected, "credentials are refused"),
        ((403, "SignatureDoesNotMatch"), Rejected, "credentials are refused"),
        ((400, "ExpiredToken"), Rejected, "credentials are refused"),
        ((403, "RequestTimeTooSkewed"), Rejected, "clocks differ"),
        ((404, "NoSuchBucket"), Rejected, "bucket bucket does not exist"),
        ((501, "NotImplemented"), Rejected, "cannot do what Penstock needs"),
        ((507, "XMinioStorageFull"), Rejected, "full"),
        ((400, "EntityTooLarge"), Rejected, "EntityTooLarge: told so"),
    ],
)
def test_an_error_answer_is_told_by_what_to_do(
    answer: tuple[int, str], kind: type[PenstockError], words: str
):
    with server_that_answers(answer) as script:
        store = store_at(script.url, tries=1)
        assert words in refusal(kind, lambda: store.put("a", b"")).what
        assert words in refusal(kind, lambda: store.put_if_absent("b", b"")).what
        assert words in refusal(kind, lambda: list(store.list(""))).what


def test_a_bucket_of_another_region_is_rejected_where_the_server_does_not_name_it():
    # The second request is boto3 asking for the region.
    with server_that_answers((301, "PermanentRedirect"), (200, "")) as script:
        e = refusal(Rejected, lambda: store_at(script.url).put("a", b""))
    assert "another region" in e.what
    assert "AWS_DEFAULT_REGION" in str(e.fix)


@pytest.mark.parametrize(
    ("code", "kind"),
    [("AccessDenied", Rejected), ("SlowDown", Retryable), ("InternalError", Retryable)],
)
def test_one_object_that_cannot_be_deleted_fails_the_whole_batch(
    code: str, kind: type[PenstockError]
):
    error = f"<Error><Key>job/b</Key><Code>{code}</Code><Message>no</Message></Error>"
    with (
        server_that_answers((200, f"<DeleteResult>{error}</DeleteResult>")) as script,
        pytest.raises(kind, match=code) as e,
    ):
        store_at(script.url).delete(["job/a", "job/b"])
    assert e.value.where == "s3://bucket/job/b"


def test_nothing_is_deleted_before_the_first_which_may_name_the_others():
    error = "<Error><Key>job/_metadata</Key><Code>SlowDown</Code><Message>no</Message></Error>"
    with server_that_answers((200, f"<DeleteResult>{error}</DeleteResult>")) as script:
        with pytest.raises(Retryable):
            store_at(script.url).delete(["job/_metadata", "job/a", "job/b"])
        assert len(script.bodies) == 1
        assert b"job/a" not in script.bodies[0]
        script.answers = [(200, "<DeleteResult/>")]
        store_at(script.url).delete(["job/_metadata", "job/a", "job/b"])
        assert [b"job/b" in body for body in script.bodies] == [False, False, True]


def test_a_batch_in_which_one_object_is_gone_already_is_deleted():
    error = "<Error><Key>job/b</Key><Code>NoSuchKey</Code><Message>no</Message></Error>"
    with server_that_answers((200, f"<DeleteResult>{error}</DeleteResult>")) as script:
        store_at(script.url).delete(["job/a", "job/b"])


def test_a_busy_server_is_asked_again():
    with server_that_answers((503, "SlowDown"), (200, "")) as script:
        store_at(script.url).put("a", b"")
        assert script.requests == ["PUT /bucket/a"] * 2


def test_a_conflict_between_creators_is_tried_until_it_is_decided():
    conflict = (409, "ConditionalRequestConflict")
    with server_that_answers(conflict, conflict, (200, "")) as script:
        assert store_at(script.url, tries=1).put_if_absent("a", b"") is True
        assert len(script.requests) == 3
    with server_that_answers(conflict, (412, "PreconditionFailed")) as script:
        assert store_at(script.url, tries=1).put_if_absent("a", b"") is False


def test_a_conflict_without_end_is_retryable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("penstock.storage.s3._CONFLICT_TRIES", 3)
    with server_that_answers((409, "ConditionalRequestConflict")) as script:
        with pytest.raises(Retryable, match="all the time"):
            store_at(script.url, tries=1).put_if_absent("a", b"")
        assert len(script.requests) == 3


def test_a_creation_whose_answer_is_lost_may_meet_itself_and_say_false():
    with server_that_answers("hang-up", (412, "PreconditionFailed")) as script:
        assert store_at(script.url).put_if_absent("a", b"") is False
        assert len(script.requests) == 2


def test_a_creation_without_any_answer_is_of_unknown_outcome():
    with server_that_answers("hang-up") as script:
        refusal(Retryable, lambda: store_at(script.url, tries=1).put_if_absent("a", b""))
