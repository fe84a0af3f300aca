"""Somebody who runs commands: root or an ordinary user, who may mount even where /dev/fuse is closed to users.

Where the tests run as root, the ordinary user is `nobody`, in a mount namespace of its own that has a /dev/fuse for
everybody and FUSE's list of connections, as any desktop has. The namespace goes with the role, and so do the mounts in
it.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path(__file__).parents[2]
_OPEN_FUSE = """
mount -t tmpfs none /mnt && mknod -m 666 /mnt/fuse c 10 229 && mount --bind /mnt/fuse /dev/fuse || exit 1
mount -t fusectl none /sys/fs/fuse/connections || exit 1
echo ready
exec cat
"""


@dataclass(frozen=True)
class Role:
    """Who it is, what stands before each command, and a folder of its own."""

    is_root: bool
    uid: int
    gid: int
    prefix: tuple[str, ...]
    folder: Path

    def call(self, *command: str | bytes | Path) -> bytes:
        """What a command prints; it must go well."""
        return subprocess.run([*self.prefix, *command], check=True, stdout=subprocess.PIPE, cwd="/").stdout

    def python(self, *arguments: str | bytes | Path) -> subprocess.CompletedProcess[bytes]:
        """Run Python with the sources of the tests."""
        command = [*self.prefix, "env", f"PYTHONPATH={SOURCES}", sys.executable, *arguments]
        return subprocess.run(command, capture_output=True, check=False)

    def give(self, folder: Path) -> None:
        """Make a tree its own."""
        if os.geteuid() == 0:
            subprocess.run(["chown", "-R", "-h", f"{self.uid}:{self.gid}", folder], check=True)


@contextmanager
def role(name: str) -> Iterator[Role]:
    """The role `root` or `user`, for a time."""
    folder = Path(tempfile.mkdtemp(prefix="backthen-test-"))
    try:
        if name == "root" or os.geteuid() != 0:
            yield Role(name == "root", os.geteuid(), os.getegid(), (), folder)
        else:
            with _nobody(folder) as nobody:
                yield nobody
    finally:
        subprocess.run(["chmod", "-R", "u+rwx", folder], check=True)
        shutil.rmtree(folder)


@contextmanager
def _nobody(folder: Path) -> Iterator[Role]:
    user = pwd.getpwnam("nobody")
    os.chown(folder, user.pw_uid, user.pw_gid)
    holder = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", _OPEN_FUSE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdin is not None and holder.stdout is not None
    try:
        assert holder.stdout.readline() == b"ready\n"
        enter = ("nsenter", "-t", str(holder.pid), "--mount", "-S", str(user.pw_uid), "-G", str(user.pw_gid), "--")
        yield Role(False, user.pw_uid, user.pw_gid, enter, folder)
    finally:
        holder.stdin.close()
        holder.wait()
        holder.stdout.close()
