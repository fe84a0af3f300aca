"""A repository's history as one read-only file system, and the mounts that show it.

The face: all that `cli` may import.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from backthen.fsmount.drivers import Driver, load_driver
from backthen.fsmount.errors import MountBusy, MountError, MountRefused, NotMounted, UnusableMountpoint
from backthen.fsmount.mounting import (
    MountState,
    check_mounted,
    clean_stale,
    mount_state,
    prepare_mountpoint,
    raise_read_ahead,
    unmount,
)
from backthen.fsmount.view import (
    REQUEST_DEADLINE_S,
    Blobs,
    History,
    NotADirectory,
    Owner,
    Serving,
    Showing,
    View,
    history_view,
    tree_view,
)
from backthen.repository import PathNotFound, SnapshotInfo, monotonic_ns, now_ns

__all__ = [
    "REQUEST_DEADLINE_S",
    "Blobs",
    "Driver",
    "History",
    "MountBusy",
    "MountError",
    "MountOptions",
    "MountRefused",
    "MountState",
    "NotMounted",
    "Owner",
    "UnusableMountpoint",
    "clean_stale",
    "mount_state",
    "prepare_mountpoint",
    "serve",
    "unmount",
]


@dataclass(frozen=True, slots=True)
class MountOptions:
    """How to mount.

    Attributes:
        allow_other: let other users in, as far as modes, owners and ACLs in the snapshots allow.
        snapshot: show this one directory alone: a snapshot and a path in it.
        repository_folder: where the repository is, if it is on this machine; no mount can be inside.
        driver: what it is mounted with; None for the one of this platform.
        owner: to whom all files in the snapshots seem to belong; None for the owners that they had.
        request_deadline_s: for how many seconds a request may wait for the storage before it fails.
    """

    allow_other: bool = False
    snapshot: tuple[SnapshotInfo, bytes] | None = None
    repository_folder: Path | None = None
    driver: Driver | None = None
    owner: Owner | None = None
    request_deadline_s: float = REQUEST_DEADLINE_S


def serve(history: History, mountpoint: Path, options: MountOptions, ready: Callable[[], None]) -> None:
    """Mount a history, serve it until it is unmounted or the process is told to stop, then unmount it.

    What stops it is SIGINT, SIGTERM or SIGHUP.
    To be called in the main thread, once a process at a time, after any fork. Where the process is killed, the
    mountpoint answers ENOTCONN until `clean_stale` or `unmount`. On the return, a worker thread may still wait for the
    storage.

    Args:
        history: what to show.
        mountpoint: an empty directory; a dead mount of ours that is there is cleaned up.
        options: how.
        ready: called once the mount answers.

    Raises:
        UnusableMountpoint: nothing can be mounted there.
        MountRefused: the operating system did not make the mount, or not as asked.
        MountBusy: a dead mount could not be taken away.
        PathNotFound: the snapshot has no directory at the path.
        RepositoryError: the repository cannot be read.
    """
    serve_view = load_driver(options.driver)
    view = _view(history, options)
    target = prepare_mountpoint(mountpoint, repository_folder=options.repository_folder)

    def mounted() -> None:
        check_mounted(target)

    def answering() -> None:
        raise_read_ahead(target)
        ready()

    serve_view(
        view,
        target,
        allow_other=options.allow_other,
        request_deadline_s=options.request_deadline_s,
        mounted=mounted,
        ready=answering,
    )


def _view(history: History, options: MountOptions) -> View:
    mounter, showing = Owner(os.getuid(), os.getgid()), Showing(options.owner, Serving(os.getpid(), now_ns()))
    if options.snapshot is None:
        return history_view(history, mounter, monotonic_ns, showing=showing)
    info, path = options.snapshot
    try:
        return tree_view(history, info, path, mounter, monotonic_ns, showing=showing)
    except NotADirectory as error:
        shown = path.decode(errors="backslashreplace")
        raise PathNotFound(f"{'/' + shown!r} is not a folder, and only a folder can be mounted") from error
