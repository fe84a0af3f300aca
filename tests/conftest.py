"""What holds for all tests."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.support.s3_server import S3Server, moto_server


def pytest_configure() -> None:
    """Take signals as on a terminal: shells start background jobs with them ignored, which is inherited."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """An S3 server of these tests alone."""
    with moto_server() as server:
        yield server
