"""`mount` and `umount` as processes see them. What is inside a mount is tested in tests/mount."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import User, program

pytestmark = pytest.mark.skipif(not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="this user cannot open /dev/fuse")


@pytest.fixture
def mountpoint(user: User, tree: Path) -> Iterator[Path]:
    user.snapshot(str(tree))
    folder = user.home / "Past"
    folder.mkdir()
    yield folder
    subprocess.run(["fusermount3", "-u", "-z", "-q", str(folder)], check=False, stderr=subprocess.DEVNULL)


def mounted(path: Path) -> bool:
    return str(path) in Path("/proc/self/mounts").read_text()


@pytest.mark.parametrize("driver", [[], ["--driver", "libfuse3"], ["--driver", "pyfuse3"], ["--driver", "refuse"]])
def test_mount_comes_back_when_the_folder_can_be_used(
    user: User, tree: Path, mountpoint: Path, driver: list[str]
) -> None:
    document = user.run("mount", str(mountpoint), "--json", *driver).document
    assert (tree / "letter.txt").read_bytes() == (mountpoint / f"latest{tree}" / "letter.txt").read_bytes()
    assert Path(str(document["log"])).is_relative_to(user.home)
    pid = int(str(document["pid"]))
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    user.run("umount", str(mountpoint))
    assert os.listdir(mountpoint) == []
    assert not mounted(mountpoint)


def test_the_process_lets_go_of_the_callers_pipes(user: User, mountpoint: Path) -> None:
    # `communicate` comes back at the end of both pipes only: a process that kept one would make it wait.
    process = subprocess.Popen(
        [*program(), "mount", str(mountpoint)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=user.environment
    )
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert str(mountpoint) in out.decode()
    assert ".log" in out.decode()
    user.run("umount", str(mountpoint))


def test_one_folder_can_be_mounted_alone(user: User, tree: Path, mountpoint: Path) -> None:
    user.run("mount", str(mountpoint), "--snapshot", f"latest:{tree}")
    assert sorted(os.listdir(mountpoint)) == ["below", "letter.txt", "link"]
    user.run("umount", str(mountpoint))


def _error_of_listing(mountpoint: Path) -> int | None:
    """What a listing fails with when the killed process is wholly gone; until then it may be ECONNABORTED."""
    code: int | None = errno.ECONNABORTED
    while code == errno.ECONNABORTED:
        try:
            os.listdir(mountpoint)
            code = None
        except OSError as error:
            code = error.errno
    return code


def test_a_mount_that_was_killed_answers_enotconn_until_it_is_cleaned(user: User, mountpoint: Path) -> None:
    for clean in ("umount", "mount"):
        pid = int(str(user.run("mount", str(mountpoint), "--json").document["pid"]))
        os.kill(pid, signal.SIGKILL)
        assert _error_of_listing(mountpoint) == errno.ENOTCONN
        user.run(clean, str(mountpoint))
    assert "latest" in os.listdir(mountpoint)
    user.run("umount", str(mountpoint))


@pytest.mark.parametrize("driver", ["libfuse3", "pyfuse3", "refuse"])
@pytest.mark.parametrize("ending", ["interrupt", "umount", "fusermount3"])
def test_a_mount_in_the_foreground_ends_with_zero(user: User, mountpoint: Path, ending: str, driver: str) -> None:
    process = subprocess.Popen(
        [*program(), "mount", "--foreground", "--json", "--driver", driver, str(mountpoint)],
        stdout=subprocess.PIPE,
        env=user.environment,
    )
    assert process.stdout is not None
    text = process.stdout.readline()
    while not text.rstrip().endswith(b"}"):
        text += process.stdout.readline()
    assert process.pid == json.loads(text)["pid"]
    assert "latest" in os.listdir(mountpoint)
    if ending == "interrupt":
        process.send_signal(signal.SIGINT)
    elif ending == "umount":
        user.run("umount", str(mountpoint))
    else:
        subprocess.run(["fusermount3", "-u", str(mountpoint)], check=True)
    assert process.wait(timeout=60) == 0
    process.stdout.close()
    assert not mounted(mountpoint)


def test_errors_of_the_background_are_told_by_the_command(user: User, tree: Path, mountpoint: Path) -> None:
    user.run("mount", str(mountpoint), "--snapshot", "latest:/no/such", code=1)
    user.run("mount", str(mountpoint), "--snapshot", f"latest:{tree}/letter.txt", code=1)
    user.run("mount", str(mountpoint), code=12, variables={"BACKTHEN_PASSWORD_FILE": "", "BACKTHEN_PASSWORD": "no"})
    user.run("mount", str(mountpoint), code=10, variables={"BACKTHEN_REPOSITORY": "/nowhere"})
    assert not mounted(mountpoint)


def test_a_mountpoint_that_cannot_be_used_is_fifteen(user: User, tree: Path, mountpoint: Path) -> None:
    user.run("mount", str(mountpoint / "missing"), code=15)
    user.run("mount", str(tree), code=15)
    user.run("umount", str(mountpoint), code=15)
    user.run("mount", str(mountpoint))
    user.run("mount", str(mountpoint), code=15)
    user.run("umount", str(mountpoint))


def test_a_driver_whose_library_is_missing_is_fifteen_and_says_what_to_install(user: User, mountpoint: Path) -> None:
    result = user.run(
        "mount", str(mountpoint), "--driver", "refuse", code=15, variables={"FUSE_LIBRARY_PATH": "/none/libfuse.so"}
    )
    assert "libfuse cannot be used" in result.err
    assert "libfuse2" in result.err
    assert not mounted(mountpoint)
