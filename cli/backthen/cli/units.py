"""The systemd user unit that mounts at login: its text, where it is, and how the service manager is told.

No secret is in a unit: it names where the password comes from. systemd.service(5), systemd.syntax(7) and
systemd-escape(1) have the rules that are followed here.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from backthen.cli.failures import ExitCode, MountFailed, RequestError
from backthen.cli.names import shown_text
from backthen.cli.replacing import replace_file

RETRY_S = 30
STOP_TIMEOUT_S = 30
MANAGER_TIMEOUT_S = 120
_NAME_CHARACTERS_MAX = 200
_DIGEST_DIGITS = 16
_WANTED_BY = "default.target"
_MARK = "# Made by `backthen mount --install`"
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:_.")

# What another try cannot mend: a wrong call, a wrong password, a damaged repository.
_HOPELESS = (ExitCode.USAGE, ExitCode.WRONG_PASSWORD, ExitCode.DAMAGED)

_TEXT = """\
{mark}; `backthen mount --uninstall` takes it away.
[Unit]
Description=Backthen: the past of your files at {shown}

[Service]
Type=notify
NotifyAccess=main
{environment}ExecStart={start}
# It is called, too, after somebody has unmounted by hand: then there is nothing to do, and nothing wrong.
ExecStop=-{stop}
Restart=on-failure
RestartSec={retry_s}
RestartPreventExitStatus={hopeless}
TimeoutStartSec={start_timeout_s}
TimeoutStopSec={stop_timeout_s}
# Nothing may be added here that gives it a file system view of its own, or takes fusermount3 its rights: the mount
# would be seen by nobody else, or not be made.

[Install]
WantedBy={wanted_by}
"""


def units_folder() -> Path:
    """Where this user's units are."""
    import platformdirs

    return platformdirs.user_config_path("systemd") / "user"


def unit_name(mountpoint: Path) -> str:
    """The name of the unit for a mountpoint: one for each, as systemd-escape(1) would call it."""
    data = os.fsencode(mountpoint).strip(b"/") or b"/"
    escaped = "".join(_escaped_byte(byte, is_first=index == 0) for index, byte in enumerate(data))
    if len(escaped) > _NAME_CHARACTERS_MAX:
        escaped = hashlib.sha256(data).hexdigest()[:_DIGEST_DIGITS]
    return f"backthen-{escaped}.service"


def unit_text(mountpoint: Path, start: Sequence[str], stop: Sequence[str], environment: Mapping[str, str]) -> str:
    """The unit.

    Args:
        mountpoint: what it is about.
        start: the command that mounts and serves; it says by sd_notify(3) that it is ready.
        stop: the command that unmounts.
        environment: what it needs beside what the service manager gives it.

    Raises:
        RequestError: a path is not UTF-8, which units cannot hold.
    """
    return _TEXT.format(
        mark=_MARK,
        shown=_specifiers_escaped(shown_text(str(mountpoint))),
        environment="".join(f"Environment={_quoted(variable)}\n" for variable in map("=".join, environment.items())),
        start=_command_line(start),
        stop=_command_line(stop),
        retry_s=RETRY_S,
        hopeless=" ".join(str(int(code)) for code in _HOPELESS),
        start_timeout_s=MANAGER_TIMEOUT_S,
        stop_timeout_s=STOP_TIMEOUT_S,
        wanted_by=_WANTED_BY,
    )


def install_unit(folder: Path, name: str, text: str) -> Path:
    """Write a unit and have it started at each login; the path of its file.

    Raises:
        RequestError: there is a unit of that name that is somebody else's.
        OSError: it cannot be written.
    """
    path = folder / name
    _check_ours(path)
    replace_file(path, text.encode())
    link = _login_link(folder, name)
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(Path("..") / name)
    return path


def uninstall_unit(folder: Path, name: str) -> Path:
    """Take a unit away; the path that its file had.

    Raises:
        RequestError: there is none, or it is somebody else's.
        OSError: it cannot be removed.
    """
    path = folder / name
    if not path.exists():
        raise RequestError(f"there is no unit {path}", hint="`backthen mount --install` makes one for a mountpoint.")
    _check_ours(path)
    _login_link(folder, name).unlink(missing_ok=True)
    path.unlink()
    return path


def tell_manager(*arguments: str) -> str | None:
    """Have this user's service manager do something: None where it was done, else what was said against it."""
    command = ["systemctl", "--user", *arguments]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=MANAGER_TIMEOUT_S + 10, check=False
        )
    except FileNotFoundError:
        return "systemctl is not there"
    except subprocess.TimeoutExpired:
        return "systemctl did not come back"
    return None if done.returncode == 0 else done.stderr.decode(errors="replace").strip() or "systemctl failed"


def start_unit(name: str) -> None:
    """Have a unit started, and wait until it is ready.

    Raises:
        MountFailed: it was not.
    """
    refusal = tell_manager("restart", name)
    if refusal is not None:
        raise MountFailed(
            f"the unit was installed, but did not start: {refusal}", hint=f"See `journalctl --user -u {name}`."
        )


def _login_link(folder: Path, name: str) -> Path:
    return folder / f"{_WANTED_BY}.wants" / name


def _check_ours(path: Path) -> None:
    if path.exists() and not path.read_bytes().startswith(_MARK.encode()):
        raise RequestError(f"{path} was not made by Backthen, and stays as it is", hint="Move it away and try again.")


def _escaped_byte(byte: int, *, is_first: bool) -> str:
    character = chr(byte)
    if character == "/":
        return "-"
    is_plain = character in _PLAIN and not (is_first and character == ".")
    return character if is_plain else f"\\x{byte:02x}"


def _command_line(words: Sequence[str]) -> str:
    # In a command `$` stands for variables, but for its first word, where doubling it would do harm.
    first, *rest = words
    return " ".join([_quoted(first), *(_quoted(word).replace("$", "$$") for word in rest)])


def _quoted(word: str) -> str:
    try:
        word.encode()
    except UnicodeEncodeError:
        raise RequestError(f"{shown_text(word)} is not UTF-8, and a unit cannot hold it") from None
    return '"' + _specifiers_escaped("".join(_quoted_character(character) for character in word)) + '"'


def _quoted_character(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    return character if character.isprintable() else "".join(f"\\x{byte:02x}" for byte in character.encode())


def _specifiers_escaped(text: str) -> str:
    return text.replace("%", "%%")
