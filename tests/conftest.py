"""What holds for all tests."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.support.ssh_server import SshServer, ssh_server


def pytest_configure() -> None:
    """Take signals as on a terminal: shells start background jobs with them ignored, which is inherited."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def shared_ssh_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    """A server for all tests that do not harm it."""
    with ssh_server(tmp_path_factory.mktemp("sshd")) as server:
        yield server
