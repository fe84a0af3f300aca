"""An HTTP server in a thread that answers as a test says."""

from __future__ import annotations

import ssl
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

_POLL_S = 0.02
_CONDITION = "if-none-match"
_OF_ONE_CONNECTION = frozenset({"connection", "content-length", "host", "keep-alive", "transfer-encoding"})


class Request(NamedTuple):
    """What a client asks for; names of headers are lower-case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


class Answer(NamedTuple):
    """What it is told. The headers may promise more than the body holds: then the connection breaks after it."""

    status: int
    headers: Mapping[str, str] = {}
    body: bytes = b""


Responder = Callable[[Request], Answer]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that break off, as those do which do not trust the server."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


@contextmanager
def http_server(respond: Responder, certificate: Path | None = None) -> Iterator[str]:
    """Serve on loopback, by TLS where there is a certificate with its key; the server's address as a URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = respond(Request(self.command, self.path, headers, body))
            promised = {name.lower(): value for name, value in answer.headers.items()}
            promised.setdefault("content-length", str(len(answer.body)))
            self.send_response(answer.status)
            for name, value in promised.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.body)
            self.close_connection = int(promised["content-length"]) > len(answer.body) and self.command != "HEAD"

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with _Server(("127.0.0.1", 0), Handler) as server:
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, args=(_POLL_S,))
        thread.start()
        try:
            yield f"{'http' if certificate is None else 'https'}://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def pass_on(endpoint: str, request: Request) -> Answer:
    """What another server answers to the same request."""
    connection = HTTPConnection(urlsplit(endpoint).netloc)
    kept = {name: value for name, value in request.headers.items() if name not in _OF_ONE_CONNECTION}
    connection.request(request.method, request.target, request.body, kept)
    with connection.getresponse() as response:
        body = response.read()
        headers = {name.lower(): value for name, value in response.getheaders()}
    connection.close()
    dropped = _OF_ONE_CONNECTION - ({"content-length"} if request.method == "HEAD" else set())
    return Answer(response.status, {name: headers[name] for name in headers if name not in dropped}, body)


def ignoring_conditions(endpoint: str) -> Responder:
    """A server like the one at an endpoint, but for conditions, which it overlooks."""

    def respond(request: Request) -> Answer:
        headers = {name: value for name, value in request.headers.items() if name != _CONDITION}
        return pass_on(endpoint, request._replace(headers=headers))

    return respond


def refusing_conditions(endpoint: str) -> Responder:
    """A server like the one at an endpoint, but for conditions, which it says it does not know."""

    def respond(request: Request) -> Answer:
        if _CONDITION in request.headers:
            return s3_error(501, "NotImplemented")
        return pass_on(endpoint, request)

    return respond


def s3_error(status: int, code: str, text: str = "") -> Answer:
    """An error in S3's words."""
    document = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{text}</Message></Error>"
    return Answer(status, {"content-type": "application/xml"}, document.encode())
