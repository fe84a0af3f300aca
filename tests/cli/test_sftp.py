"""A repository on an SSH server, as a user has it: everything by the command line."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import User, program, settle
from tests.support.comparison import differences
from tests.support.slow_line import SlowLine
from tests.support.ssh_server import SshServer

MIB = 1 << 20


@pytest.fixture
def distant(newcomer: User, ssh_server: SshServer, tmp_path: Path) -> User:
    """A newcomer who logs in to a server by the host `backups` of the SSH configuration."""
    settle(newcomer)
    ssh = newcomer.home / ".ssh"
    ssh.mkdir(mode=0o700)
    (ssh / "config").write_text(ssh_server.config.read_text())
    newcomer.variables["BACKTHEN_REPOSITORY"] = f"sftp://backups{tmp_path}/stored/repository"
    return newcomer


def test_the_main_job_on_an_ssh_server(distant: User, tree: Path, mountpoint: Path, tmp_path: Path) -> None:
    location = distant.variables["BACKTHEN_REPOSITORY"]
    assert location in distant.run("init").text
    first = distant.snapshot(str(tree))
    (tree / "new").write_bytes(os.urandom(3_000_000))
    second = distant.snapshot(str(tree))
    assert first != second
    assert "stored" in os.listdir(tmp_path)

    mounted = distant.run("mount", "--json", str(mountpoint)).document
    assert str(mountpoint) == mounted["mountpoint"]
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", f"{mountpoint}/latest{tree}", copy], check=True)
    assert list(differences(os.fsencode(tree), os.fsencode(copy))) == []
    distant.run("umount", str(mountpoint))

    restored = tmp_path / "restored"
    distant.run("restore", "latest", "--target", str(restored))
    assert list(differences(os.fsencode(tree), os.fsencode(f"{restored}{tree}"))) == []
    distant.run("--repository", location, "check", "--read-data", variables={"BACKTHEN_REPOSITORY": ""})


def test_the_first_repository_on_a_server_is_the_default_from_then_on(distant: User, tree: Path) -> None:
    location = distant.variables.pop("BACKTHEN_REPOSITORY")
    distant.run("init", location)
    distant.snapshot(str(tree))
    assert f'"{location}"' in (distant.home / "config" / "backthen" / "config.toml").read_text()
    assert f"there is a repository at {location} already" in distant.run("init", location, code=1).err


def test_a_mount_at_login_is_installed_for_a_server(distant: User, tree: Path, mountpoint: Path) -> None:
    distant.run("init")
    distant.snapshot(str(tree))
    variables = {"AWS_PROFILE": "of other programs", "AWS_ENDPOINT_URL": "https://s3.example.org"}
    document = distant.run("mount", "--json", "--install", str(mountpoint), variables=variables).document
    text = Path(str(document["unit"])).read_text()
    assert f'"{distant.variables["BACKTHEN_REPOSITORY"]}"' in text
    assert f"XDG_CACHE_HOME={distant.home}/cache" in text
    assert "AWS_" not in text


@pytest.mark.parametrize(
    ("location", "said", "hint"),
    [
        ("sftp://me:s3cret@127.0.0.1/path", "must not hold a password", "ssh-copy-id"),
        ("sftp://127.0.0.1", "names no folder", "sftp://user@host/path"),
        ("sftp://127.0.0.1:1/path", "nobody takes connections at that port", "Is the SSH server running"),
    ],
)
def test_locations_that_lead_nowhere_are_told(distant: User, location: str, said: str, hint: str) -> None:
    done = distant.run("snapshot", "list", variables={"BACKTHEN_REPOSITORY": location}, code=None)
    assert (said in done.err, hint in done.err, "s3cret" in done.err) == (True, True, False)
    assert done.code == (14 if "port" in said else 1)


def test_a_host_that_is_not_known_is_told(distant: User, ssh_server: SshServer) -> None:
    config = distant.home / ".ssh" / "config"
    config.write_text(config.read_text().replace(str(ssh_server.known_hosts), "/nowhere"))
    done = distant.run("snapshot", "list", code=14)
    assert "is not known" in done.err
    assert "compare the fingerprint" in done.err


def test_an_interrupt_ends_a_call_that_hangs(distant: User, tree: Path, ssh_server: SshServer, tmp_path: Path) -> None:
    distant.run("init")
    with SlowLine(("127.0.0.1", ssh_server.port), round_trip_s=0.001) as line:
        ssh_server.also_at(line.port)
        location = f"sftp://{ssh_server.user}@127.0.0.1:{line.port}{tmp_path}/stored/repository"
        line.stall()
        process = subprocess.Popen(
            [*program(), "--repository", location, "snapshot", "list"],
            env=distant.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        while not line.counts.connections:
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
        assert (process.returncode, b"Traceback" in said) == (130, False)


def test_a_snapshot_over_a_line_that_breaks_goes_on_where_it_was(
    distant: User, tree: Path, ssh_server: SshServer, tmp_path: Path
) -> None:
    distant.run("init")
    (tree / "large").write_bytes(os.urandom(40 * MIB))
    with SlowLine(("127.0.0.1", ssh_server.port), round_trip_s=0.001) as line:
        ssh_server.also_at(line.port)
        location = f"sftp://{ssh_server.user}@127.0.0.1:{line.port}{tmp_path}/stored/repository"
        line.cut_after(24 * MIB)
        process = subprocess.Popen(
            [*program(), "--repository", location, "snapshot", "create", str(tree)],
            env=distant.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        assert "trying again" in process.stderr.readline()
        line.go()
        _, said = process.communicate()
        assert (process.returncode, "socket" in said) == (0, False), said
        assert line.counts.sent < 60 * MIB
    distant.run("check", "--read-data")


def test_check_asks_the_storage_and_not_the_cache(distant: User, tree: Path, tmp_path: Path) -> None:
    """What this machine stored and read is still near, and whole."""
    distant.run("init")
    distant.snapshot(str(tree))
    distant.run("check", "--read-data")
    folder = tmp_path / "stored" / "repository"
    objects = [path for path in folder.rglob("*") if path.is_file() and path.parent.name not in ("keys", "repository")]
    for path in objects:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    found = distant.run("check", "--read-data", "--json", code=13)
    assert {str(path.relative_to(folder)) for path in objects} == {
        event["name"] for event in found.events if event["event"] == "finding"
    }
