"""Mounting at each login: `mount --install` and `--uninstall`, and a real service manager that does it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.conftest import PASSWORD, User, program
from tests.support.onlooker import PATIENCE_S, wait_until
from tests.support.service_manager import service_manager


def units(user: User) -> set[Path]:
    """The units that are installed, and the links that have them started."""
    return {path for path in (user.home / "config" / "systemd").rglob("*") if not path.is_dir()}


def test_it_is_installed_without_a_secret_and_taken_away_again(user: User, tree: Path, past: Path) -> None:
    user.snapshot(str(tree))
    document = user.run("mount", "--json", "--install", "--owner", "me", "--snapshot", "latest:/", str(past)).document
    unit = Path(str(document["unit"]))

    assert document == {"mountpoint": str(past), "unit": str(unit), "started": False}
    assert {unit.parent / "default.target.wants" / unit.name, unit} == units(user)
    text = unit.read_text()
    assert PASSWORD not in text
    assert 0o600 == unit.stat().st_mode & 0o777
    for word in (
        user.variables["BACKTHEN_PASSWORD_FILE"],
        user.variables["BACKTHEN_REPOSITORY"],
        "latest:/",
        str(past),
    ):
        assert f'"{word}"' in text
    assert f"XDG_STATE_HOME={user.home}/state" in text
    assert "at login" in user.run("mount", "--install", str(past)).text
    assert "latest:/" not in unit.read_text(), "what is installed later holds"

    assert {"mountpoint": str(past), "unit": str(unit)} == user.run(
        "mount", "--json", "--uninstall", str(past)
    ).document
    assert set() == units(user)
    assert "there is no unit" in user.run("mount", "--uninstall", str(past), code=1).err


@pytest.mark.parametrize(
    ("variables", "code", "said"),
    [
        ({"BACKTHEN_PASSWORD_FILE": ""}, 2, "nobody to ask for the password"),
        ({"BACKTHEN_PASSWORD_FILE": "", "BACKTHEN_PASSWORD": PASSWORD}, 2, "BACKTHEN_PASSWORD is not there at login"),
        ({"BACKTHEN_PASSWORD_FILE": "/etc/hostname"}, 12, "password is wrong"),
        ({"BACKTHEN_REPOSITORY": "/nowhere"}, 10, "no repository"),
    ],
)
def test_what_could_not_mount_at_login_is_not_installed(
    user: User, past: Path, variables: dict[str, str], code: int, said: str
) -> None:
    assert said in user.run("mount", "--install", str(past), code=code, variables=variables).err
    assert set() == units(user)


def test_what_cannot_be_done_at_once_is_refused(user: User, past: Path) -> None:
    user.run("mount", "--install", "--uninstall", str(past), code=2)
    user.run("mount", "--install", "--foreground", str(past), code=2)
    user.run("mount", "--install", str(past / "missing"), code=15)
    user.run("mount", "--install", "--snapshot", "latest", str(past), code=1)
    assert set() == units(user)


def test_a_mount_in_the_foreground_says_when_it_is_ready(user: User, past: Path) -> None:
    address = str(user.home / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(address)
        channel.settimeout(PATIENCE_S)
        environment = {**user.environment, "NOTIFY_SOCKET": address}
        command = [*program(), "-q", "mount", "--foreground", str(past)]
        with subprocess.Popen(command, env=environment) as server:
            assert b"READY=1" == channel.recv(100)
            assert "snapshots" in os.listdir(past)
            server.send_signal(signal.SIGINT)
            assert server.wait(PATIENCE_S) == 0


# With a service manager


@dataclass(frozen=True)
class Managed:
    """Somebody whose service manager runs, and what it says of the unit of the mountpoint."""

    user: User
    past: Path
    see: Callable[..., bytes]

    def state(self) -> dict[str, str]:
        (unit,) = (path.name for path in units(self.user) if path.is_symlink())
        text = self.see("systemctl", "--user", "show", "-p", "ActiveState,NRestarts,MainPID,Result", unit).decode()
        return dict(line.split("=", 1) for line in text.splitlines())


@pytest.fixture
def managed(user: User, tree: Path, past: Path, tmp_path: Path) -> Iterator[Managed]:
    user.snapshot(str(tree))
    with service_manager(user.environment, tmp_path / "manager.log") as (enter, variables):
        inside = User(user.home, {**user.variables, **variables}, prefix=enter)

        def see(*command: str | Path) -> bytes:
            done = subprocess.run([*enter, *command], env=inside.environment, capture_output=True, check=False)
            return done.stdout + done.stderr

        yield Managed(inside, past, see)


def test_a_service_manager_mounts_mends_and_unmounts(managed: Managed) -> None:
    user, past = managed.user, managed.past
    assert "now and at each login" in user.run("mount", "--install", str(past)).text
    assert b"latest" in managed.see("ls", past)
    first = managed.state()
    assert first["ActiveState"] == "active"

    (unit,) = (path for path in units(user) if not path.is_symlink())
    quicker = unit.with_name(f"{unit.name}.d")
    quicker.mkdir()
    (quicker / "quicker.conf").write_text("[Service]\nRestartSec=1\n")
    managed.see("systemctl", "--user", "daemon-reload")
    os.kill(int(first["MainPID"]), signal.SIGKILL)
    wait_until(lambda: managed.state()["NRestarts"] == "1" and managed.state()["ActiveState"] == "active")
    assert b"latest" in managed.see("ls", past), "what was left of the first was cleaned away"

    user.run("umount", str(past))
    wait_until(lambda: managed.state()["ActiveState"] == "inactive")
    assert managed.state()["Result"] == "success"
    assert b"" == managed.see("ls", "-A", past)

    user.run("mount", "--install", str(past))
    assert b"latest" in managed.see("ls", past)
    user.run("mount", "--uninstall", str(past))
    assert b"" == managed.see("ls", "-A", past)


def test_what_was_mounted_by_hand_stays_until_the_next_login(managed: Managed) -> None:
    user, past = managed.user, managed.past
    user.run("mount", str(past))
    assert "at login" in user.run("mount", "--install", str(past)).text
    assert managed.state()["ActiveState"] == "inactive"
    assert b"latest" in managed.see("ls", past)
    user.run("umount", str(past))
