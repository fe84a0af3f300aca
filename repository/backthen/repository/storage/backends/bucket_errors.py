"""What a bucket refuses or cannot do, from the words of its server to an error of the storage. Pure.

obstore tells kinds of errors apart only roughly; what the server answered (a status, and the code in its document) and
how the connection failed stand in its text alone. That is looked through for what is known, and never passed on: a
server may answer with what it was sent.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from backthen.repository.errors import StorageError

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>\s*([A-Za-z]{1,80})\s*</Code>")
_STRANGE_PATH = re.compile(r'path: "([^"\n]{1,300})"')  # with all that is not printable escaped
_CODES_NO_BUCKET = frozenset({"NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted"})
_CODES_CONFLICT = frozenset({"ConditionalRequestConflict", "OperationAborted"})
_STATUSES_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_OFFLINE = "Is this machine online, and is the endpoint right?"
_REGION_HINT = "Set AWS_REGION to the region of the bucket, or AWS_ENDPOINT_URL to its server."
_KEYS_HINT = "Check the key and its secret: they may be mistyped, expired, or another server's."


class _Sentence(NamedTuple):
    text: str
    hint: str = ""
    transient: bool = False


_BY_CODE = {
    **dict.fromkeys(
        (
            "InvalidAccessKeyId",
            "SignatureDoesNotMatch",
            "AuthenticationFailed",
            "InvalidToken",
            "InvalidAuthenticationInfo",
        ),
        _Sentence("the server does not accept the credentials", _KEYS_HINT),
    ),
    **dict.fromkeys(
        ("ExpiredToken", "TokenRefreshRequired", "ExpiredTokenException"),
        _Sentence("the credentials have expired", "Get new ones, and go on where this run stopped."),
    ),
    **dict.fromkeys(
        ("RequestTimeTooSkewed", "RequestExpired"),
        _Sentence(
            "the clock of this machine differs from the server's", "Set the clock; requests are signed with the time."
        ),
    ),
    **dict.fromkeys(
        ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"),
        _Sentence("the bucket is in another region, or on another server", _REGION_HINT),
    ),
    **dict.fromkeys(
        ("QuotaExceeded", "InsufficientCapacity", "StorageFull", "XMinioStorageFull"),
        _Sentence("there is no room left in the bucket", "Make room; nothing that was stored is harmed."),
    ),
    **dict.fromkeys(_CODES_CONFLICT, _Sentence("somebody else works on the same object", transient=True)),
    "InvalidBucketName": _Sentence("the name of the bucket is not a valid one", "Check how it is spelled."),
    "AccountIsDisabled": _Sentence("the account is disabled", "Ask whoever runs the storage."),
}
_ACCESS_DENIED = _Sentence(
    "access denied", "The credentials must be allowed to list the bucket, and to get and put objects (docs/storage.md)."
)
# How a connection failed, as obstore's text has it; the first that is found.
_BY_WORDS = (
    (re.compile(r"without LOCATION"), _Sentence("the bucket is in another region, or on another server", _REGION_HINT)),
    (
        re.compile(r"InvalidContentType|CorruptMessage"),
        _Sentence(
            "the server does not speak TLS", "Give an endpoint with http:// where it is meant to go unencrypted."
        ),
    ),
    (
        re.compile(r"InvalidCertificate|UnknownIssuer|CaUsedAsEndEntity|[Cc]ertificate"),
        _Sentence(
            "the server's certificate is not trusted",
            "Check the endpoint; for an authority of your own set AWS_CA_BUNDLE to its certificate.",
        ),
    ),
    (re.compile(r"dns error"), _Sentence("the server's name is not known", _OFFLINE, transient=True)),
    (re.compile(r"kind: ConnectionRefused"), _Sentence("the server refuses connections", _OFFLINE, transient=True)),
    (re.compile(r"kind: Timeout|TimedOut"), _Sentence("the server does not answer", _OFFLINE, transient=True)),
    (re.compile(r"kind: Connect"), _Sentence("the server cannot be reached", _OFFLINE, transient=True)),
    (re.compile(r"kind: (?:Interrupted|Request)"), _Sentence("the connection broke", _OFFLINE, transient=True)),
)


class Answer(NamedTuple):
    """What a server answered, as far as it is known: status and code, 0 and empty where it is not."""

    status: int
    code: str

    @property
    def is_past_the_end(self) -> bool:
        """Whether the object ends before the range that was asked for."""
        return self.status == 416

    @property
    def is_not_implemented(self) -> bool:
        """Whether the server does not know what it was asked for."""
        return self.status == 501 or self.code == "NotImplemented"

    @property
    def is_bucket_missing(self) -> bool:
        """Whether it is the bucket that is not there."""
        return self.code in _CODES_NO_BUCKET

    @property
    def is_conflict(self) -> bool:
        """Whether somebody else was at work on the same object, so that nothing is known of it."""
        return self.code in _CODES_CONFLICT

    @property
    def is_denied(self) -> bool:
        """Whether it was understood, and is not allowed."""
        return self.status in (401, 403)


def read_answer(error: BaseException) -> Answer:
    """What the server answered, from what obstore raised."""
    text = str(error)
    if "StartTooLarge" in text:  # Azure's answer is a success without a byte, which obstore takes for a failure
        return Answer(416, "")
    status, code = _STATUS.search(text), _CODE.search(text)
    return Answer(int(status[1]) if status else 0, code[1] if code else "")


def plain_error(error: BaseException, what: str) -> StorageError:
    """The error of the storage for what obstore raised about `what`."""
    answer = read_answer(error)
    sentence = _sentence(answer, str(error))
    known = ", ".join(filter(None, (str(answer.status or ""), answer.code)))
    text = f"{what}: {sentence.text}" + (f" ({known})" if known else "")
    return StorageError(text, hint=sentence.hint, transient=sentence.transient)


def strange_name(error: BaseException, what: str) -> StorageError:
    """The error for an object whose name obstore cannot handle, which keeps a folder from being listed."""
    path = _STRANGE_PATH.search(str(error))
    text = f"{what}: somebody has put an object with a strange name there" + (f": {path[1]}" if path else "")
    return StorageError(text, hint="Delete it; it is none of Backthen's.")


def no_answer(what: str) -> StorageError:
    """The error for a server that says nothing, or takes nothing."""
    return StorageError(f"{what}: the server does not answer", hint=_OFFLINE, transient=True)


def _sentence(answer: Answer, text: str) -> _Sentence:
    if answer.is_bucket_missing:
        return _Sentence("there is no such bucket", "Make it first, or check name, endpoint and region.")
    if answer.code in _BY_CODE:
        return _BY_CODE[answer.code]
    if answer.status in _STATUSES_TRANSIENT:
        return _Sentence("the server failed, or has too much to do", transient=True)
    if answer.is_denied:
        return _ACCESS_DENIED
    if answer.status:
        return _Sentence("the server refused", "Check endpoint and region.")
    for words, sentence in _BY_WORDS:
        if words.search(text):
            return sentence
    return _Sentence("the server gave an answer that makes no sense", "Check endpoint and region.")
