"""Which adapter mounts a view. An adapter is imported when it is used: each needs a library that need not be there."""

from __future__ import annotations

import enum
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, assert_never

from backthen.fsmount.errors import MountRefused
from backthen.fsmount.view import View


class Driver(enum.StrEnum):
    """What a mount is made with."""

    LIBFUSE3 = "libfuse3"
    PYFUSE3 = "pyfuse3"
    REFUSE = "refuse"
    WINFSPY = "winfspy"


_OF_PLATFORM = {"darwin": (Driver.REFUSE,), "win32": (Driver.WINFSPY,)}

_log = logging.getLogger("backthen.fsmount")


class ServeView(Protocol):
    """An adapter's way of mounting a view and serving it; the adapters say what they raise."""

    def __call__(
        self,
        view: View,
        mountpoint: Path,
        *,
        allow_other: bool,
        request_deadline_s: float,
        mounted: Callable[[], None],
        ready: Callable[[], None],
    ) -> None:
        """Mount, serve until unmounted or told to stop, unmount."""
        ...


def platform_drivers(platform: str = sys.platform) -> tuple[Driver, ...]:
    """The drivers of a platform, as `sys.platform` names it: the first that can be used is taken."""
    return _OF_PLATFORM.get(platform, (Driver.LIBFUSE3, Driver.PYFUSE3))


def load_driver(driver: Driver | None) -> ServeView:
    """How to mount with a driver, or with the first of this platform's that can be used.

    Raises:
        MountRefused: the driver, or what it needs, is not installed.
    """
    *preferred, last = (driver,) if driver else platform_drivers()
    for chosen in preferred:
        try:
            return _adapter(chosen)
        except (ImportError, OSError) as error:
            _log.info("the driver %s cannot be used: %s", chosen, error)
    try:
        return _adapter(last)
    except (ImportError, OSError) as error:
        raise MountRefused(
            f"the driver {last} cannot be used: {error}", hint="docs/platforms.md says what each driver needs."
        ) from error


def _adapter(driver: Driver) -> ServeView:
    match driver:
        case Driver.LIBFUSE3:
            from backthen.fsmount.adapters import libfuse3, libfuse3_session

            libfuse3_session.load_library()
            return libfuse3.serve_view
        case Driver.PYFUSE3:
            from backthen.fsmount.adapters import pyfuse3

            return pyfuse3.serve_view
        case Driver.REFUSE:
            from backthen.fsmount.adapters import refuse

            return refuse.serve_view
        case Driver.WINFSPY:
            from backthen.fsmount.adapters import winfspy

            return winfspy.serve_view
        case _:
            assert_never(driver)
