"""Made `repository-v1/`, the golden repository, and `repository-v1.json`, what is in it (FORMAT.md, section 14).

    sudo .venv/bin/python -m tests.vectors.make_repository

makes another one like it with the installed program; keys and times are new each time. It is never to be made again
for format 1: what it holds must stay readable for ever. It is here to show how it was made, and for format 2.

It needs Linux, root (a host and a user called `golden` exist only in namespaces of its own), and extended attributes
on tmpfs. The passwords are `golden` and `golden too`.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from tests.support.manifest import Manifest, manifest
from tests.support.sample_tree import ODD_NAMES

REPOSITORY = Path(__file__).with_name("repository-v1")
EXPECTED = Path(__file__).with_name("repository-v1.json")
HOME = Path("/mnt/home")
TREE = Path("/mnt/golden")
INSIDE = "--inside"
_ISOLATE = ("unshare", "--mount", "--uts", "--propagation", "private")
_SHELL = """
set -e
hostname golden
mount -t tmpfs -o mode=755 golden /mnt
echo 'golden:x:0:0::/:/bin/sh' > /mnt/passwd
echo 'golden:x:0:' > /mnt/group
mount --bind /mnt/passwd /etc/passwd
mount --bind /mnt/group /etc/group
exec "$@"
"""
_BLOCK_BYTES = 4000
_BLOCKS = 200


def main() -> None:
    """Make both, in namespaces of their own."""
    if sys.argv[1:] == [INSIDE]:
        _make()
    else:
        again = [sys.executable, "-m", "tests.vectors.make_repository", INSIDE]
        subprocess.run([*_ISOLATE, "sh", "-c", _SHELL, "sh", *again], check=True)


def _make() -> None:
    HOME.mkdir()
    TREE.mkdir()
    shutil.rmtree(REPOSITORY, ignore_errors=True)
    _run("init", str(REPOSITORY))
    make_tree(TREE)
    snapshots = [_snapshot("first", "odd tag \u00fc")]
    change_tree(TREE)
    snapshots.append(_snapshot("second"))
    new_password = HOME / "new password"
    new_password.touch(mode=0o600)
    new_password.write_text("golden too")
    _run("key", "add", "--new-password-file", str(new_password))
    shutil.rmtree(REPOSITORY / "tmp", ignore_errors=True)
    subprocess.run(["chmod", "-R", "a+rX", REPOSITORY], check=True)  # as Git keeps it
    document = {"path": str(TREE), "snapshots": snapshots}
    EXPECTED.write_text(json.dumps(document).replace("}, ", "},\n") + "\n", encoding="ascii")


def make_tree(folder: Path) -> None:
    """One of everything that an ordinary user can make."""
    contents = random.Random(1)
    block = contents.randbytes(_BLOCK_BYTES)
    (folder / "text").write_text("hello\n")
    (folder / "empty").touch()
    (folder / "random").write_bytes(contents.randbytes(5000))
    (folder / "large").write_bytes(b"".join(b"%08d" % number + block for number in range(_BLOCKS)))
    with (folder / "sparse").open("wb") as file:
        os.pwrite(file.fileno(), b"middle", 1 << 20)
        file.truncate(3 << 20)
    for name in ODD_NAMES:
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(name)
    inner = folder / "folder" / "deeper"
    inner.mkdir(parents=True)
    (folder / "empty folder").mkdir()
    (inner / "first name").write_bytes(b"one inode")
    os.link(inner / "first name", folder / "second name")
    os.symlink("text", folder / "link")
    os.symlink(b"nowhere/\xff\n", os.fsencode(folder / "dangling"))
    os.mkfifo(folder / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.fsencode(folder / "socket"))
    many = folder / "many"
    many.mkdir()
    for number in range(300):
        (many / f"{number:03d}").write_bytes(b"%d\n" % (number % 10))
    os.setxattr(folder / "text", "user.note", b"kept\0binary")
    os.setxattr(folder / "folder", "user.large", contents.randbytes(2500))
    _set_modes_and_times(folder)


def change_tree(folder: Path) -> None:
    """What happens between the two snapshots."""
    (folder / "text").write_text("hello again\n")
    (folder / "random").unlink()
    (folder / "folder").rename(folder / "moved")
    (folder / "new").write_bytes(b"new")
    _set_modes_and_times(folder)


def _set_modes_and_times(folder: Path) -> None:
    """The deepest first, so that times stay; some are before 1970."""
    number = 0
    for parent, folders, files in os.walk(os.fsencode(folder), topdown=False):
        for name in sorted((*files, *folders)):
            number += 1
            path = os.path.join(parent, name)
            if not os.path.islink(path):
                os.chmod(path, 0o755 if os.path.isdir(path) else (0o600, 0o640, 0o644)[number % 3])
            seconds = -number if number % 7 == 0 else 1_500_000_000 + number
            time_ns = seconds * 1_000_000_000 + 123_456_789 + number
            os.utime(path, ns=(time_ns, time_ns), follow_symlinks=False)
    os.utime(folder, ns=(0, 1_600_000_000_987_654_321))


def _snapshot(*tags: str) -> dict[str, object]:
    options = [part for tag in tags for part in ("--tag", tag)]
    last = _run("snapshot", "create", str(TREE), "--json", *options).splitlines()[-1]
    entries: Manifest = manifest(TREE)
    return {"id": json.loads(last)["id"], "tags": sorted(tags), "entries": entries}


def _run(*arguments: str) -> bytes:
    environment = {
        "HOME": str(HOME),
        "LC_ALL": "C.UTF-8",
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(sys.path),
        "BACKTHEN_REPOSITORY": str(REPOSITORY),
        "BACKTHEN_PASSWORD": "golden",
    }
    command = [sys.executable, "-m", "backthen.cli", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment).stdout


if __name__ == "__main__":
    main()
