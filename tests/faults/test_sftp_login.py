"""Who logs in to an SSH server, and whom it has to be known as."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from backthen.repository.errors import InvalidRequest
from backthen.repository.storage import CONFIG_NAME, open_storage
from tests.support.sftp_storages import configured, refusal_of, sftp_storage
from tests.support.ssh_server import SshServer, make_key, throwaway_sshd


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """For the files of a server of this test alone."""
    made = tmp_path / "sshd"
    made.mkdir()
    return made


def test_an_unknown_host_is_refused_and_how_to_know_it_is_told(ssh_server: SshServer, tmp_path: Path) -> None:
    access = configured(ssh_server, tmp_path, f"UserKnownHostsFile {tmp_path / 'none'}\n")
    refusal = refusal_of(ssh_server.location(tmp_path), access)
    assert f"the key of [127.0.0.1]:{ssh_server.port} is not known" in str(refusal)
    assert f"ssh -p {ssh_server.port} {ssh_server.user}@127.0.0.1" in refusal.hint
    assert not refusal.transient


def test_a_changed_host_key_is_refused_as_such(ssh_server: SshServer, tmp_path: Path) -> None:
    make_key(tmp_path / "other")
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{ssh_server.port} {(tmp_path / 'other.pub').read_text()}")
    refusal = refusal_of(
        ssh_server.location(tmp_path), configured(ssh_server, tmp_path, f"UserKnownHostsFile {known}\n")
    )
    assert "is not the one in known_hosts" in str(refusal)
    assert f"ssh-keygen -R '[127.0.0.1]:{ssh_server.port}'" in refusal.hint
    assert not refusal.transient


def test_a_configuration_cannot_switch_the_check_of_the_host_off(ssh_server: SshServer, tmp_path: Path) -> None:
    text = "StrictHostKeyChecking no\nUserKnownHostsFile none\nGlobalKnownHostsFile none\n"
    assert "is not known" in str(refusal_of(ssh_server.location(tmp_path), configured(ssh_server, tmp_path, text)))


def test_hashed_known_hosts_are_known(ssh_server: SshServer, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(ssh_server.known_hosts.read_text())
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", known], check=True, stderr=subprocess.DEVNULL)
    assert "127.0.0.1" not in known.read_text()
    access = configured(ssh_server, tmp_path, f"UserKnownHostsFile {known}\n")
    with sftp_storage(ssh_server.location(tmp_path / "repository"), access) as storage:
        storage.create()


def test_a_wrong_key_is_refused_once_and_for_all(ssh_server: SshServer, tmp_path: Path) -> None:
    make_key(tmp_path / "stranger")
    access = replace(ssh_server.access, ssh_config=(tmp_path / "config",))
    access.ssh_config[0].write_text(
        f"IdentityFile {tmp_path / 'stranger'}\nUserKnownHostsFile {ssh_server.known_hosts}\n"
    )
    refusal = refusal_of(ssh_server.location(tmp_path), access)
    assert f"127.0.0.1 lets {ssh_server.user} in with none of the keys" in str(refusal)
    assert "ssh-copy-id" in refusal.hint
    assert not refusal.transient


def test_a_key_with_a_passphrase_is_used_from_the_agent_alone(folder: Path, tmp_path: Path) -> None:
    socket = tmp_path / "agent"
    with throwaway_sshd(folder) as server:
        subprocess.run(["ssh-keygen", "-q", "-p", "-N", "open sesame", "-f", server.client_key], check=True)
        assert "ssh-add" in refusal_of(server.location(tmp_path / "repository"), server.access).hint
        with _agent(socket, server.client_key, tmp_path):
            access = replace(server.access, ssh_agent=socket)
            with sftp_storage(server.location(tmp_path / "repository"), access) as storage:
                storage.create()
            text = f"Host *\n  IdentityAgent {socket}\n"
            elsewhere = replace(configured(server, tmp_path, text), ssh_agent=tmp_path / "no agent")
            with sftp_storage(server.location(tmp_path / "repository"), elsewhere) as storage:
                storage.create()


@contextmanager
def _agent(socket: Path, key: Path, tmp_path: Path) -> Iterator[None]:
    """An agent that holds a key with the passphrase `open sesame`."""
    ask = tmp_path / "ask"
    ask.write_text("#!/bin/sh\necho open sesame\n")
    ask.chmod(0o700)
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.PIPE)
    try:
        assert agent.stdout is not None
        agent.stdout.readline()
        environment = os.environ | {
            "SSH_AUTH_SOCK": str(socket),
            "SSH_ASKPASS": str(ask),
            "SSH_ASKPASS_REQUIRE": "force",
        }
        subprocess.run(["ssh-add", "-q", key], check=True, env=environment, stdin=subprocess.DEVNULL)
        yield
    finally:
        agent.terminate()
        agent.communicate()


def test_the_configuration_names_host_port_user_and_key(ssh_server: SshServer, tmp_path: Path) -> None:
    with sftp_storage(f"sftp://backups{tmp_path}/repository", ssh_server.access) as storage:
        storage.create()
        storage.put(CONFIG_NAME, b"content")
    assert (tmp_path / "repository" / "config").read_bytes() == b"content"


def test_a_configuration_that_cannot_be_read_is_told(ssh_server: SshServer, tmp_path: Path) -> None:
    access = configured(ssh_server, tmp_path, "Port many\n")
    with sftp_storage(ssh_server.location(tmp_path), access) as storage, pytest.raises(InvalidRequest) as caught:
        storage.get(CONFIG_NAME)
    assert "Port" in str(caught.value)


def test_a_jump_host_leads_to_the_server_and_is_checked_too(
    folder: Path, ssh_server: SshServer, tmp_path: Path
) -> None:
    with throwaway_sshd(folder) as jump:
        known = tmp_path / "known_hosts"
        known.write_text(ssh_server.known_hosts.read_text() + jump.known_hosts.read_text())
        text = (
            f"Host jump\n  Hostname 127.0.0.1\n  Port {jump.port}\n  IdentityFile {jump.client_key}\n"
            f"  UserKnownHostsFile {known}\nHost backups\n  ProxyJump jump\n  UserKnownHostsFile {known}\n"
        )
        access = configured(ssh_server, tmp_path, text)
        location = f"sftp://backups{tmp_path}/repository"
        with sftp_storage(location, access) as storage:
            storage.create()
            assert len(jump.sessions()) > 0
        known.write_text(ssh_server.known_hosts.read_text())
        assert f"[127.0.0.1]:{jump.port} is not known" in str(refusal_of(location, access))


def test_jump_hosts_that_lead_in_a_circle_are_told(ssh_server: SshServer, tmp_path: Path) -> None:
    access = configured(ssh_server, tmp_path, "Host *\n  ProxyJump round\n")
    with sftp_storage(f"sftp://backups{tmp_path}", access) as storage, pytest.raises(InvalidRequest, match="too many"):
        storage.get(CONFIG_NAME)


def test_a_password_in_a_location_is_refused_and_not_repeated() -> None:
    with pytest.raises(InvalidRequest) as caught:
        open_storage("sftp://me:s3cret@host/path")
    assert "s3cret" not in f"{caught.value} {caught.value.hint}"
