"""The unit that mounts at login: what it is called, what is in it, and whose it is. systemd judges it."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from click import Option

from backthen.cli.commands.mount import mount
from backthen.cli.failures import RequestError
from backthen.cli.readiness import tell_service_manager
from backthen.cli.units import install_unit, uninstall_unit, unit_name, unit_text

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not there")
PLACES = (
    "/home/me/Past",
    "/home/me/with space",
    "/a-b/c.d/.hidden",
    "/ümläut/日本",
    "/quote\"d/it's/back\\slash",
    "/per%cent/dol$lar/${HOME}/%h",
    "/new\nline/\x1b[2J/tab\t",
    "/semi;colon/#hash/=",
)


def text_for(place: str, environment: dict[str, str] | None = None) -> str:
    program = shutil.which("true") or "/bin/true"
    return unit_text(Path(place), [program, "--", place], [program, "umount", place], environment or {})


@pytest.mark.skipif(shutil.which("systemd-escape") is None, reason="systemd is not there")
@pytest.mark.parametrize("place", [*PLACES, "/", "/.x"])
def test_the_name_is_what_systemd_calls_the_path(place: str) -> None:
    escaped = subprocess.run(["systemd-escape", "--path", place], check=True, capture_output=True, text=True).stdout
    assert f"backthen-{escaped.strip()}.service" == unit_name(Path(place))


def test_a_long_name_is_cut_and_stays_its_own() -> None:
    first, second = (unit_name(Path("/" + "long/" * 60 + last)) for last in "ab")
    assert first != second
    assert len(first) < 255


@needs_systemd
@pytest.mark.parametrize("place", PLACES)
def test_systemd_finds_nothing_wrong_with_it(tmp_path: Path, place: str) -> None:
    folders = {"XDG_STATE_HOME": f"{place}/state", "XDG_CONFIG_HOME": str(tmp_path)}
    path = install_unit(tmp_path / "systemd" / "user", unit_name(Path(place)), text_for(place, folders))
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(runtime), "XDG_CONFIG_HOME": str(tmp_path)}
    done = subprocess.run(
        ["systemd-analyze", "--user", "verify", path], env=environment, capture_output=True, text=True, check=False
    )

    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)
    assert "default.target.wants" in str(next((tmp_path / "systemd" / "user").glob("*.wants/*")))


def test_plain_words_reach_the_program_as_they_are() -> None:
    (line,) = (line for line in text_for("/home/me/with space").splitlines() if line.startswith("ExecStart="))
    assert ["--", "/home/me/with space"] == shlex.split(line.removeprefix("ExecStart="))[1:]


def test_a_path_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(RequestError, match="not UTF-8"):
        text_for("/bad\udcff")


def test_what_was_installed_can_be_installed_again_and_taken_away(tmp_path: Path) -> None:
    name = unit_name(Path("/x"))
    path = install_unit(tmp_path, name, text_for("/x"))
    assert path == install_unit(tmp_path, name, text_for("/x"))
    link = tmp_path / "default.target.wants" / name
    assert path.samefile(link)
    assert path == uninstall_unit(tmp_path, name)
    assert [] == [found for found in tmp_path.rglob("*") if not found.is_dir()]
    with pytest.raises(RequestError, match="there is no unit"):
        uninstall_unit(tmp_path, name)


def test_a_unit_of_somebody_else_stays(tmp_path: Path) -> None:
    name = unit_name(Path("/x"))
    (tmp_path / name).write_text("[Service]\n")
    with pytest.raises(RequestError, match="was not made by Backthen"):
        install_unit(tmp_path, name, text_for("/x"))
    with pytest.raises(RequestError, match="was not made by Backthen"):
        uninstall_unit(tmp_path, name)
    assert (tmp_path / name).read_text() == "[Service]\n"


def test_every_option_of_mount_is_written_into_the_unit_or_has_no_place_there() -> None:
    """An option that is forgotten here would be silently dropped at the next login."""
    written = {"reference", "allow_other", "owner", "driver", "cache_size", "timeout_s", "host", "tags", "path"}
    about_now = {"foreground", "bookmark", "install", "uninstall"}
    found = {param.name for param in mount.params if isinstance(param, Option) and param.expose_value}
    assert written | about_now == found


@pytest.mark.parametrize("is_abstract", [False, True])
def test_a_service_manager_is_told_once(tmp_path: Path, is_abstract: bool) -> None:
    address = f"@backthen-test-{os.getpid()}" if is_abstract else str(tmp_path / "notify")
    environment = {"NOTIFY_SOCKET": address, "HOME": "/"}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind("\0" + address[1:] if is_abstract else address)
        channel.settimeout(60)
        assert tell_service_manager(environment)
        assert not tell_service_manager(environment)
        assert b"READY=1" == channel.recv(100)
    assert {"HOME": "/"} == environment
