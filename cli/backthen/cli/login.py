"""Mounting at each login: from what a mount was asked to be, to a unit of the user's service manager, and back."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from backthen.cli.bucket_options import harmless_variables, secret_variable
from backthen.cli.failures import NoPassword, RequestError
from backthen.cli.passwords import GivenPassword, PasswordCommand, PasswordFile
from backthen.cli.settings import Settings
from backthen.cli.units import (
    install_unit,
    start_unit,
    tell_manager,
    uninstall_unit,
    unit_name,
    unit_text,
    units_folder,
)

_FOLDER_VARIABLES = ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME")


@dataclass(frozen=True, slots=True)
class Installed:
    """A unit that was installed: its file, and whether it was started now or waits for the next login."""

    unit: Path
    is_started: bool


def check_unattended(settings: Settings) -> None:
    """Refuse a source of the password, and of credentials of the storage, that is not there when nobody is.

    Raises:
        NoPassword: the password is not.
        RequestError: the credentials are not.
    """
    variable = secret_variable(settings.location, os.environ)
    if variable is not None:
        raise RequestError(
            f"{variable} is not there at login", hint="Put the credentials into a profile or file (docs/storage.md)."
        )
    source = settings.password
    if isinstance(source, PasswordFile | PasswordCommand):
        return
    is_given = isinstance(source, GivenPassword)
    raise NoPassword(
        "BACKTHEN_PASSWORD is not there at login" if is_given else "at login there is nobody to ask for the password",
        hint="Name a --password-file, or a --password-command such as 'secret-tool lookup backthen home'.",
    )


def install_login_mount(
    settings: Settings, mountpoint: Path, arguments: Sequence[str], *, may_start: bool
) -> Installed:
    """Mount at each login from now on.

    Args:
        settings: of the mount; its password comes from a file or a command.
        mountpoint: where; it can be mounted at.
        arguments: the options of `backthen mount` that make it what it is to be.
        may_start: have it started now too, where the service manager can be reached.

    Raises:
        NoPassword: the password comes from somewhere else.
        RequestError: the storage's credentials are not there at login, a path cannot be written into a unit, or there
            is a unit of that name that is somebody else's.
        MountFailed: it was installed, but did not start.
        OSError: it cannot be written.
    """
    check_unattended(settings)
    program, place = program_command(), ["--", str(mountpoint)]
    start = [*program, *_setting_arguments(settings), "mount", "--foreground", *arguments, *place]
    name = unit_name(mountpoint)
    text = unit_text(mountpoint, start, [*program, "--quiet", "umount", *place], _environment(settings))
    path = install_unit(units_folder(), name, text)
    is_started = tell_manager("daemon-reload") is None and may_start
    if is_started:
        start_unit(name)
    return Installed(path, is_started)


def _environment(settings: Settings) -> dict[str, str]:
    """What of the environment is wanted at login, too: where the user's folders are, and which storage is meant."""
    folders = {name: os.environ[name] for name in _FOLDER_VARIABLES if os.environ.get(name)}
    return folders | harmless_variables(settings.location, os.environ)


def uninstall_login_mount(mountpoint: Path) -> Path:
    """Mount at login no more, and unmount what the service manager has mounted; the path that the unit had.

    Raises:
        RequestError: there is no such unit, or it is somebody else's.
        OSError: it cannot be removed.
    """
    name = unit_name(mountpoint)
    is_reachable = tell_manager("daemon-reload") is None
    if is_reachable and (units_folder() / name).exists():
        refusal = tell_manager("stop", name)
        if refusal is not None:
            raise RequestError(f"{name} could not be stopped: {refusal}", hint="It was left as it is.")
    path = uninstall_unit(units_folder(), name)
    if is_reachable:
        tell_manager("daemon-reload")
    return path


def program_command() -> list[str]:
    """How this program is called, wherever from."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return [sys.executable, "-m", "backthen.cli"]
    return [os.path.abspath(called)]


def _setting_arguments(settings: Settings) -> list[str]:
    source = settings.password
    sizes = {
        "--cache-limit": settings.cache_limit,
        "--upload-limit": settings.upload_limit,
        "--download-limit": settings.download_limit,
    }
    arguments = ["--repository", settings.location, "--cache-dir", str(settings.cache)]
    arguments += [word for option, size in sizes.items() if size is not None for word in (option, str(size))]
    if isinstance(source, PasswordFile):
        return [*arguments, "--password-file", os.path.abspath(source.path)]
    assert isinstance(source, PasswordCommand)
    return [*arguments, "--password-command", source.command]
