"""A real service manager of a user, systemd's, in a mount namespace of its own, where the system lets one be started.

Wanted: root, systemd, a D-Bus daemon, and leave to mount. It is the user manager of whoever runs the tests.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

MANAGER = Path("/lib/systemd/systemd")
START_WITHIN_S = 60

# A manager wants to see a machine that runs systemd, and a group of processes that it may divide.
_SURROUNDINGS = """
mount -t tmpfs none /run && mkdir -p /run/systemd/system && mkdir -m 700 /run/me &&
{ umount -l /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup; } 2>/dev/null &&
mkdir "/sys/fs/cgroup/$1" && echo $$ >"/sys/fs/cgroup/$1/cgroup.procs" || exit 77
echo surroundings
dbus-run-session -- "$2" --user >"$3" 2>&1
echo $$ >/sys/fs/cgroup/cgroup.procs
find "/sys/fs/cgroup/$1" -depth -type d -exec rmdir {} +
"""


@contextmanager
def service_manager(environment: Mapping[str, str], log: Path) -> Iterator[tuple[tuple[str, ...], dict[str, str]]]:
    """Start one for a time: what stands before a command that is to see what it sees, and variables for it."""
    if os.geteuid() != 0 or not MANAGER.exists() or shutil.which("dbus-run-session") is None:
        pytest.skip("a service manager cannot be started here")
    variables = {"XDG_RUNTIME_DIR": "/run/me"}
    group = f"backthen-test-{os.getpid()}"
    holder = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", _SURROUNDINGS, "sh", group, MANAGER, log],
        env={**environment, **variables},
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    assert holder.stdout is not None
    with holder.stdout as told:
        if told.readline() != b"surroundings\n":
            holder.wait()
            pytest.skip("the surroundings of a service manager cannot be made here")
        enter = ("nsenter", "-t", str(holder.pid), "--mount", "--")
        try:
            manager = _wait_for_manager([*enter, "systemctl", "--user"], {**environment, **variables})
            yield enter, variables
            os.kill(manager, signal.SIGTERM)
        finally:
            holder.wait()


def _wait_for_manager(systemctl: list[str], environment: Mapping[str, str]) -> int:
    """The process id of the manager, once it listens."""
    deadline = time.monotonic() + START_WITHIN_S
    while subprocess.run([*systemctl, "daemon-reload"], env=environment, capture_output=True, check=False).returncode:
        assert time.monotonic() < deadline, "the manager does not listen"
        time.sleep(0.1)
    enter = systemctl[: systemctl.index("--") + 1]
    asked = [*systemctl, "show", "--property=ControlGroup", "--value", "init.scope"]
    group = subprocess.run(asked, env=environment, capture_output=True, check=True, text=True).stdout.strip()
    ids = subprocess.run([*enter, "cat", f"/sys/fs/cgroup{group}/cgroup.procs"], capture_output=True, check=True).stdout
    return int(ids.split()[0])
