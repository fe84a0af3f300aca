"""An S3 server for tests: moto in a process of its own, on loopback, with its objects in memory.

python -m tests.support.s3_server       says the port it listens at; ends with its standard input
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from backthen.repository import StorageAccess

BUCKET = "tests"
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class S3Server:
    """A server that runs, and somebody who may use it."""

    endpoint: str
    key_id: str = "AKIDOFTHETESTS"
    secret: str = "secret-of-the-tests"
    region: str = "us-east-1"
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def access(self) -> StorageAccess:
        """What a storage has to know of it."""
        return StorageAccess(
            bucket_options={
                "aws_access_key_id": self.key_id,
                "aws_secret_access_key": self.secret,
                "aws_region": self.region,
                "aws_endpoint_url": self.endpoint,
            }
        )

    @property
    def variables(self) -> dict[str, str]:
        """The same as a user's environment has it."""
        return {
            "AWS_ACCESS_KEY_ID": self.key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_REGION": self.region,
            "AWS_ENDPOINT_URL": self.endpoint,
        }

    def new_location(self) -> str:
        """A place in the bucket that nobody has used."""
        return f"s3://{BUCKET}/test-{next(self._numbers)}"


@contextmanager
def moto_server() -> Iterator[S3Server]:
    """Run moto, with one bucket in it."""
    command = [sys.executable, "-m", "tests.support.s3_server"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_ROOT)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        port = process.stdout.readline().strip()
        assert port, "moto did not start"
        server = S3Server(f"http://127.0.0.1:{port}")
        make_bucket(server, BUCKET)
        yield server
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait()


def make_bucket(server: S3Server, bucket: str) -> None:
    """Make a bucket; moto wants no signature."""
    request = urllib.request.Request(f"{server.endpoint}/{bucket}", method="PUT")
    with urllib.request.urlopen(request) as response:
        assert response.status == 200


def _serve() -> None:
    import logging

    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    print(server.get_host_and_port()[1], flush=True)
    sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    _serve()
