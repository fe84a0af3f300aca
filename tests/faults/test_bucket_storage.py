"""Buckets whose server, line or credentials are not as they should be."""

from __future__ import annotations

import hashlib
import logging
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from xml.sax.saxutils import escape

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from obstore.exceptions import GenericError

from backthen.repository import InvalidAccess, ObjectExists, RepositoryExists, Storage, StorageAccess, StorageError
from backthen.repository.errors import ObjectMissing
from backthen.repository.ids import ObjectId, PackId
from backthen.repository.storage import (
    CONFIG_NAME,
    StoredObject,
    index_name,
    is_object_name,
    key_name,
    open_storage,
    pack_name,
)
from backthen.repository.storage.backends import bucket
from backthen.repository.storage.backends.bucket import BucketStorage
from backthen.repository.storage.backends.bucket_errors import read_answer
from backthen.repository.storage.backends.bucket_stores import BucketPlace
from backthen.repository.storage.pacing import Pace
from tests.support.http_server import (
    Answer,
    Request,
    Responder,
    http_server,
    ignoring_conditions,
    pass_on,
    refusing_conditions,
    s3_error,
)
from tests.support.s3_server import BUCKET, S3Server

SECRET = "planted-Secret/Key+0123456789"
NAME = index_name(ObjectId(hashlib.sha256(b"content").digest()))


def _access(endpoint: str, **others: str) -> StorageAccess:
    options = {
        "aws_access_key_id": "AKIDPLANTED",
        "aws_secret_access_key": SECRET,
        "aws_session_token": f"token-{SECRET}",
        "aws_endpoint_url": endpoint,
        **others,
    }
    return StorageAccess(bucket_options=options, timeout_s=1.0)


def _bare(endpoint: str, prefix: str = "prefix") -> BucketStorage:
    """The backend alone: nobody tries again."""
    return BucketStorage(BucketPlace("s3", BUCKET, prefix), _access(endpoint))


def _failure(storage: Storage) -> StorageError:
    with pytest.raises(StorageError) as caught:
        storage.get(NAME)
    storage.close()
    shown = "".join(traceback.format_exception(caught.value))
    assert SECRET not in shown
    return caught.value


@pytest.mark.parametrize(
    ("status", "code", "words", "is_transient"),
    [
        (403, "InvalidAccessKeyId", "does not accept the credentials", False),
        (403, "SignatureDoesNotMatch", "does not accept the credentials", False),
        (400, "ExpiredToken", "have expired", False),
        (403, "AccessDenied", "access denied", False),
        (403, "RequestTimeTooSkewed", "the clock of this machine", False),
        (301, "PermanentRedirect", "another region", False),
        (400, "AuthorizationHeaderMalformed", "another region", False),
        (404, "NoSuchBucket", "no such bucket", False),
        (503, "SlowDown", "too much to do", True),
        (500, "InternalError", "too much to do", True),
        (429, "TooManyRequests", "too much to do", True),
        (409, "OperationAborted", "somebody else", True),
        (507, "QuotaExceeded", "no room", False),
        (418, "Teapot", "refused", False),
    ],
)
def test_what_a_server_refuses_is_said_in_a_sentence(status: int, code: str, words: str, is_transient: bool) -> None:
    with http_server(lambda _: s3_error(status, code, f"you sent {SECRET}")) as endpoint:
        error = _failure(_bare(endpoint))
    assert words in str(error)
    assert is_transient == error.transient
    assert error.hint or is_transient
    assert not isinstance(error, ObjectMissing)


def test_a_put_that_met_another_one_is_not_taken_for_done() -> None:
    with http_server(lambda _: s3_error(409, "ConditionalRequestConflict")) as endpoint:
        storage = _bare(endpoint)
        with pytest.raises(StorageError) as caught:
            storage.put(NAME, b"content")
        storage.close()
    assert not isinstance(caught.value, ObjectExists)
    assert caught.value.transient


def test_nobody_there() -> None:
    with http_server(lambda _: Answer(200)) as endpoint:
        pass  # the port is free again
    error = _failure(_bare(endpoint))
    assert "refuses connections" in str(error)
    assert error.transient


def test_an_unknown_host() -> None:
    error = _failure(_bare("http://nobody.invalid"))
    assert "name is not known" in str(error)
    assert error.transient


def test_no_tls() -> None:
    with http_server(lambda _: Answer(200)) as endpoint:
        error = _failure(_bare(endpoint.replace("http://", "https://")))
    assert "does not speak TLS" in str(error)
    assert not error.transient


def test_a_server_that_says_nothing() -> None:
    done = threading.Event()

    def wait(_: Request) -> Answer:
        done.wait()
        return Answer(200)

    with http_server(wait) as endpoint:
        error = _failure(_bare(endpoint))
        done.set()
    assert "does not answer" in str(error)
    assert error.transient


def test_an_answer_that_breaks_off() -> None:
    headers = {"content-length": "5000", "last-modified": "Wed, 21 Oct 2015 07:28:00 GMT", "etag": '"x"'}
    with http_server(lambda _: Answer(200, headers, b"abc")) as endpoint:
        error = _failure(_bare(endpoint))
    assert "connection broke" in str(error)
    assert error.transient


def test_an_answer_that_is_longer_than_was_asked_for_is_not_taken_in(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []

    def take(_: Pace, count: int) -> float:
        taken.append(count)
        return 0.0

    monkeypatch.setattr(Pace, "delay_s", take)
    headers = {
        "content-range": "bytes 0-999/1000000",
        "last-modified": "Wed, 21 Oct 2015 07:28:00 GMT",
        "etag": '"x"',
    }
    with http_server(lambda _: Answer(206, headers, bytes(50_000_000))) as endpoint:
        storage = _bare(endpoint)
        assert bytes(1000) == storage.get(NAME, 0, 1000)
        storage.close()
    assert sum(taken) < 5_000_000


@pytest.mark.parametrize("location", ["s3://tests/x", "gs://tests/x", "az://tests/x"])
def test_without_credentials_nobody_is_asked(location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Request] = []

    def respond(request: Request) -> Answer:
        asked.append(request)
        return Answer(404)

    with http_server(respond) as endpoint:
        monkeypatch.setenv("AWS_METADATA_ENDPOINT", endpoint)
        storage = open_storage(location, StorageAccess(bucket_options={"aws_endpoint_url": endpoint}))
        with pytest.raises(InvalidAccess, match="no credentials") as caught:
            storage.get(NAME)
        storage.close()
    assert asked == []
    assert caught.value.hint


@pytest.mark.parametrize(
    ("location", "option"),
    [
        ("s3://bucket", "aws_endpoint_url"),
        ("gs://bucket", "google_base_url"),
        ("az://bucket", "azure_storage_endpoint"),
    ],
)
@pytest.mark.parametrize(
    "endpoint",
    ["garbage", "http://", "https://:1", "http://a b", "ftp://host", "https://key:planted@host", "https://host:x"],
)
def test_an_endpoint_that_is_none_is_refused(location: str, option: str, endpoint: str) -> None:
    credentials = {
        "aws_access_key_id": "key",
        "aws_secret_access_key": "secret",
        "google_metadata": "true",
        "azure_storage_account_key": "a2V5",
    }
    place = BucketPlace(location[:2], "bucket", "")
    storage = BucketStorage(place, StorageAccess(bucket_options={**credentials, option: endpoint}))
    with pytest.raises(InvalidAccess) as refused:
        storage.get(CONFIG_NAME)
    assert "the endpoint is not the address of a server" == str(refused.value)


def test_a_missing_bucket_is_not_an_empty_one(s3_server: S3Server) -> None:
    storage = open_storage("s3://nobody-made-this/prefix", s3_server.access)
    for action in (lambda: storage.get(CONFIG_NAME), lambda: list(storage.list("roots")), storage.create):
        with pytest.raises(StorageError, match="no such bucket") as caught:
            action()
        assert not isinstance(caught.value, ObjectMissing)
    storage.close()


def test_the_environment_is_not_read(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT"):
        monkeypatch.setenv(name, "http://nobody.invalid")
    storage = open_storage(s3_server.new_location(), s3_server.access)
    storage.put(NAME, b"content")
    assert storage.get(NAME) == b"content"
    storage.close()


@pytest.mark.parametrize("name", ["index/folder/", "index/%41", "index/", "index/\u2028"])
def test_names_of_others_do_no_harm(name: str) -> None:
    with http_server(lambda _: _listing(f"prefix/{name}", f"prefix/{NAME}")) as endpoint:
        storage = _bare(endpoint)
        listed = [stored for stored in storage.list("index") if is_object_name(stored.name)]
        storage.close()
    assert listed == [StoredObject(NAME, 7)]


@pytest.mark.parametrize(
    ("name", "shown"),
    [("index//a", "prefix/index//a"), ("index/./up", "prefix/index/./up"), ("index/a\nb", r"prefix/index/a\nb")],
)
def test_a_name_that_keeps_a_folder_from_being_listed_is_shown(name: str, shown: str) -> None:
    with http_server(lambda _: _listing(f"prefix/{name}")) as endpoint:
        storage = _bare(endpoint)
        with pytest.raises(StorageError) as caught:
            list(storage.list("index"))
        storage.close()
    assert str(caught.value).endswith(f": {shown}")
    assert not caught.value.transient


def _listing(*keys: str) -> Answer:
    contents = "".join(
        f"<Contents><Key>{escape(key)}</Key><Size>7</Size><LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
        for key in keys
    )
    return Answer(200, body=f"<ListBucketResult><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>".encode())


CARELESS = {"ignores": ignoring_conditions, "refuses": refusing_conditions}


@pytest.fixture(params=sorted(CARELESS))
def careless(request: pytest.FixtureRequest, s3_server: S3Server) -> Iterator[S3Server]:
    """A server that does not do what a conditional put asks for."""
    respond: Responder = CARELESS[request.param](s3_server.endpoint)
    with http_server(respond) as endpoint:
        yield replace(s3_server, endpoint=endpoint)


def test_a_careless_server_is_noticed(careless: S3Server, caplog: pytest.LogCaptureFixture) -> None:
    storage = open_storage(careless.new_location(), careless.access)
    storage.create()
    storage.put(key_name(ObjectId(hashlib.sha256(b"slot").digest())), b"slot")
    with caplog.at_level(logging.WARNING):
        storage.put(CONFIG_NAME, b"config")
    assert "does not refuse to put what is there already" in caplog.text
    assert storage.get(CONFIG_NAME) == b"config"
    with pytest.raises(RepositoryExists):
        storage.create()
    storage.close()


def test_config_is_never_changed_on_a_careless_server(careless: S3Server) -> None:
    location = careless.new_location()
    for content in (b"first", b"second"):
        storage = open_storage(location, careless.access)
        if content == b"first":
            storage.put(CONFIG_NAME, content)
        else:
            with pytest.raises(ObjectExists):
                storage.put(CONFIG_NAME, content)
        assert storage.get(CONFIG_NAME) == b"first"
        storage.close()


def test_at_most_one_of_many_makes_a_repository_on_a_careless_server(careless: S3Server) -> None:
    racers = 8
    barrier = threading.Barrier(racers)
    location = careless.new_location()

    def make(number: int) -> bool:
        storage = open_storage(location, careless.access)
        barrier.wait()
        try:
            storage.put(CONFIG_NAME, b"%d" % number)
        except StorageError:
            return False
        finally:
            storage.close()
        return True

    with ThreadPoolExecutor(racers) as pool:
        won = list(pool.map(make, range(racers)))
    storage = open_storage(location, careless.access)
    assert sum(won) <= 1
    if any(won):
        assert storage.get(CONFIG_NAME) == b"%d" % won.index(True)
    else:
        with pytest.raises(ObjectMissing):
            storage.get(CONFIG_NAME)
        storage.put(CONFIG_NAME, b"now alone")
    storage.close()


def test_a_claim_of_somebody_else_is_named(careless: S3Server) -> None:
    location = careless.new_location()
    claim = f"{location.removeprefix('s3://')}/tmp/init-{'0' * 64}"
    assert pass_on(careless.endpoint, Request("PUT", f"/{claim}", {}, b"")).status == 200
    storage = open_storage(location, careless.access)
    storage.create()
    with pytest.raises(StorageError, match="somebody else is making a repository") as caught:
        storage.put(CONFIG_NAME, b"config")
    assert f"s3://{claim}" in caught.value.hint
    with pytest.raises(ObjectMissing):
        storage.get(CONFIG_NAME)
    storage.close()


def test_objects_are_put_and_put_again_on_a_careless_server(careless: S3Server, tmp_path: Path) -> None:
    storage = open_storage(careless.new_location(), careless.access)
    name = pack_name(PackId(ObjectId(hashlib.sha256(b"pack").digest())))
    storage.put(name, b"pack")
    for _ in range(2):
        file = tmp_path / "pack"
        file.write_bytes(b"pack")
        with suppress(ObjectExists):
            storage.put_file(name, file)
        assert not file.exists()
    assert storage.get(name) == b"pack"
    storage.close()


def test_nothing_is_left_of_the_probe(s3_server: S3Server) -> None:
    location = s3_server.new_location()
    storage = open_storage(location, s3_server.access)
    storage.put(CONFIG_NAME, b"config")
    storage.close()
    prefix = location.removeprefix(f"s3://{BUCKET}/")
    listed = pass_on(s3_server.endpoint, Request("GET", f"/{BUCKET}?list-type=2&prefix={prefix}/", {}, b"")).body
    assert 1 == listed.count(b"<Key>")


def test_credentials_that_may_not_delete_make_a_repository(s3_server: S3Server) -> None:
    def respond(request: Request) -> Answer:
        if request.method == "DELETE":
            return s3_error(403, "AccessDenied")
        return pass_on(s3_server.endpoint, request)

    location = s3_server.new_location()
    with http_server(respond) as endpoint:
        storage = open_storage(location, replace(s3_server, endpoint=endpoint).access)
        storage.create()
        storage.put(CONFIG_NAME, b"config")
        assert storage.get(CONFIG_NAME) == b"config"
        storage.close()


def test_a_range_at_the_very_end_of_an_object_in_azure_is_past_it() -> None:
    error = GenericError(
        "Generic MicrosoftAzure error: … InvalidRangeRequest { source: StartTooLarge { requested: 10 } }"
    )
    assert read_answer(error).is_past_the_end


def test_limits_hold_back_what_is_sent_and_fetched(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(bucket, "_pause", pause)
    access = replace(s3_server.access, upload_limit=1_000, download_limit=2_000)
    storage = open_storage(s3_server.new_location(), access)
    storage.put(NAME, bytes(1_000_000))
    assert sum(pauses) == pytest.approx(1_000, abs=1)
    pauses.clear()
    storage.get(NAME)
    assert max(pauses) == pytest.approx(500, abs=1)
    assert len(pauses) > 1, "the line is not left alone while an object comes"
    storage.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for loopback that nobody has signed, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    path = tmp_path_factory.mktemp("authority") / "both.pem"
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(certificate.public_bytes(pem) + private)
    return path


def test_a_certificate_that_nobody_signed_is_refused_and_may_be_trusted(authority: Path) -> None:
    with http_server(lambda _: s3_error(403, "AccessDenied"), authority) as endpoint:
        error = _failure(_bare(endpoint))
        assert "certificate is not trusted" in str(error)
        assert not error.transient
        access = _access(endpoint, root_certificate=authority.read_text())
        trusting = BucketStorage(BucketPlace("s3", BUCKET, "prefix"), access)
        assert "access denied" in str(_failure(trusting))
