"""Storages that are far away, for whole programs: a real server behind a slow line, and how to reach it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.s3_server import BUCKET, S3Server, moto_server
from tests.support.slow_line import SlowLine
from tests.support.ssh_server import throwaway_sshd

_HOST = "127.0.0.1"
_ALIAS = "far"


@dataclass(frozen=True)
class Far:
    """A storage behind a line.

    Attributes:
        line: what is between.
        location: where it is for Backthen.
        restic_location: the same for restic.
        variables: what both find in their environment.
        ssh_config: what is in `~/.ssh/config`; nothing for other storages than SSH servers.
    """

    line: SlowLine
    location: str
    restic_location: str
    variables: Mapping[str, str]
    ssh_config: str = ""

    def settle(self, home: Path) -> None:
        """Let who lives there reach it."""
        if self.ssh_config:
            (home / ".ssh").mkdir(mode=0o700)
            (home / ".ssh" / "config").write_text(self.ssh_config)


@contextmanager
def far_s3(folder: Path, round_trip_s: float, bytes_per_s: float | None, record: Path | None = None) -> Iterator[Far]:
    """A bucket at moto, which closes each connection after one answer; or at the server of FAR_S3 on this machine.

    That is `http://127.0.0.1:PORT`, with keys in the usual variables and the bucket that moto has in the tests.
    """
    with _s3_server() as server:
        port = urlsplit(server.endpoint).port
        assert port is not None
        line = SlowLine((_HOST, port), round_trip_s=round_trip_s, bytes_per_s=bytes_per_s, record=record)
        with line:
            endpoint = f"http://{_HOST}:{line.port}"
            variables = {**server.variables, "AWS_ENDPOINT_URL": endpoint}
            place = f"{BUCKET}/far-{secrets.token_hex(4)}"
            yield Far(line, f"s3://{place}", f"s3:{endpoint}/{place}", variables)


@contextmanager
def _s3_server() -> Iterator[S3Server]:
    endpoint = os.environ.get("FAR_S3")
    if endpoint is None:
        with moto_server() as server:
            yield server
    else:
        yield S3Server(endpoint, os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])


@contextmanager
def far_sftp(
    folder: Path, round_trip_s: float, bytes_per_s: float | None, options: tuple[str, ...] = ()
) -> Iterator[Far]:
    """A folder at an sshd, whose configuration has further lines."""
    (folder / "sshd").mkdir()
    with throwaway_sshd(folder / "sshd", *options) as server:
        line = SlowLine((_HOST, server.port), round_trip_s=round_trip_s, bytes_per_s=bytes_per_s)
        with line:
            host_key = (folder / "sshd" / "host_key.pub").read_text()
            known_hosts = folder / "known_hosts"
            known_hosts.write_text(f"[{_HOST}]:{line.port} {host_key}")
            config = (
                f"Host {_ALIAS}\n  HostName {_HOST}\n  Port {line.port}\n  User {server.user}\n"
                f"  IdentityFile {server.client_key}\n  UserKnownHostsFile {known_hosts}\n  IdentitiesOnly yes\n"
            )
            target = folder / "repository"
            yield Far(line, f"sftp://{_ALIAS}{target}", f"sftp:{_ALIAS}:{target}", {}, config)


STORAGES: dict[str, Callable[[Path, float, float | None], AbstractContextManager[Far]]] = {
    "SFTP": far_sftp,
    "S3": far_s3,
}
