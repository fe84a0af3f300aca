"""Tries file managers on a mount, on a screen that nobody sees: what they ask of it, and pictures for docs/mount.md.

Run it as `ci/desktop`, as root: it makes itself a user `me` with a home of their own, in namespaces that go with it.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.bench.programs import own_program
from tests.bench.running import StepFailed

_ROOT = Path(__file__).resolve().parents[2]
_UID = 1000
_HOME = Path("/home/me")
_PAST = _HOME / "Past"
_SAVED = _PAST / "latest" / "home" / "me"
_REQUESTS = _HOME / ".requests"
_FOLDERS = ("Documents", "Pictures", "Music", "Videos", "Projects")
_LETTERS, _PICTURES, _NOTES = 36, 24, 5000
_QUIET_S = 2.0
"""Who asked nothing for so long is taken to have finished."""
_PATIENCE_S = 120.0
_IDLE_S = 10.0
_KEY_S = 0.3
_FIRST_DAY_S, _DAY_S = 1_795_000_000, 86_400
_COLORS = 64

# Everything that is started ends with the first process of the process namespace.
_PLACE = """
mount -t tmpfs none /home && mkdir /home/me && chown 1000:1000 /home/me &&
echo 'me:x:1000:1000:Me:/home/me:/bin/sh' >/home/passwd && mount --bind /home/passwd /etc/passwd &&
mount -t tmpfs none /mnt && mknod -m 666 /mnt/fuse c 10 229 && mount --bind /mnt/fuse /dev/fuse &&
mount -t tmpfs -o mode=1777 none /tmp/.X11-unix && mkdir -m 700 /home/run && chown 1000:1000 /home/run || exit 1
exec setpriv --reuid=1000 --regid=1000 --clear-groups env -i "$@"
"""
_MAXIMIZED = """<openbox_config xmlns="http://openbox.org/3.4/rc"><applications>
<application type="normal"><maximized>yes</maximized><focus>yes</focus></application>
</applications></openbox_config>"""
_SETTINGS = {
    ".config/openbox/rc.xml": _MAXIMIZED,
    ".config/gtk-3.0/settings.ini": "[Settings]\ngtk-icon-theme-name=Adwaita\ngtk-font-name=DejaVu Sans 9\n",
    ".gtkrc-2.0": 'gtk-icon-theme-name="Adwaita"\ngtk-font-name="DejaVu Sans 9"\n',
}


class Asked(NamedTuple):
    """What reached the mount: requests, those among them that found nothing, bytes read, seconds of processor time."""

    requests: int
    in_vain: int
    read_bytes: int
    cpu_s: float


class Manager(NamedTuple):
    """A file manager: its command, and how it searches below what was saved for names that begin with `letter 1`."""

    command: str
    search: Callable[[], None]


class Step(NamedTuple):
    """Something to do in a file manager; a picture is taken in the one that its name begins with."""

    name: str
    act: Callable[[Manager], None]
    picture: str = ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table of what file managers ask, and take the pictures."""
    parser = argparse.ArgumentParser(prog="ci/desktop", description=__doc__)
    parser.add_argument("--pictures", type=Path, help="put the pictures into this folder")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.inside:
        _inside(chosen.pictures)
        return 0
    with tempfile.TemporaryDirectory(prefix="backthen-desktop.") as made:
        os.chown(made, _UID, _UID)
        done = subprocess.run([*_namespaces(), *_inner_command(Path(made))], check=False)
        for picture in sorted(Path(made).glob("*.png")) if chosen.pictures else []:
            shutil.copy(picture, chosen.pictures / picture.name)
        return done.returncode


def _namespaces() -> list[str]:
    return ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--mount-proc", "--kill-child"]


def _inner_command(pictures: Path) -> list[str]:
    environment = {
        "HOME": _HOME,
        "LC_ALL": "C.UTF-8",
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": _ROOT,
        "TZ": "UTC",
        "USER": "me",
        "XDG_RUNTIME_DIR": "/home/run",
    }
    variables = [f"{name}={value}" for name, value in environment.items()]
    inner = [sys.executable, "-m", "tests.bench.desktop", "--inside", "--pictures", str(pictures)]
    return ["sh", "-c", _PLACE, "sh", *variables, "dbus-run-session", "--", *inner]


def _inside(pictures: Path) -> None:
    """As the user `me`: make a home, mount its past, and let each file manager look at it."""
    _make_home()
    _save_home()
    with _screen():
        columns = [_try_all(manager, pictures) for manager in MANAGERS]
    print("\n".join(_table(columns)))


def _make_home() -> None:
    letters, harbour, notes = _HOME / "Documents/Letters", _HOME / "Pictures/Harbour", _HOME / "Projects/Notes"
    for folder in (letters, harbour, notes, _HOME / "Music", _HOME / "Videos", _PAST):
        folder.mkdir(parents=True)
    for number in range(1, _LETTERS + 1):
        (letters / f"letter {number:02d}.txt").write_text("Dear all,\n")
    for number in range(1, _NOTES + 1):
        (notes / f"note {number:04d}.txt").write_text(f"note {number}\n")
    for number in range(1, _PICTURES + 1):
        paint = ["-seed", str(number), "-size", "320x240", "plasma:fractal", "-resize", "1600x1200", "-quality", "97"]
        _run("convert", *paint, harbour / f"harbour {number:02d}.jpg")
    (_HOME / "Videos/trip.mkv").write_bytes(os.urandom(60_000_000))
    for path, text in _SETTINGS.items():
        (_HOME / path).parent.mkdir(parents=True, exist_ok=True)
        (_HOME / path).write_text(text)


def _save_home() -> None:
    """Three snapshots, between which a file changes."""
    password, thesis = _HOME / ".password", _HOME / "Documents/thesis.odt"
    password.write_text("correct horse battery staple\n")
    password.chmod(0o600)
    os.environ.update(BACKTHEN_PASSWORD_FILE=str(password), BACKTHEN_REPOSITORY=str(_HOME / "Backups"))
    program = own_program().path
    subprocess.run([program, "-q", "init"], check=True, stdout=subprocess.DEVNULL)
    for day in range(3):
        thesis.write_bytes(os.urandom(20_000))
        os.utime(thesis, (_FIRST_DAY_S + _DAY_S * day,) * 2)
        saved = [_HOME / name for name in _FOLDERS]
        subprocess.run([program, "-q", "snapshot", "create", "--host", "laptop", *saved], check=True)


def _try_all(manager: Manager, pictures: Path) -> list[Asked]:
    """Do all steps on a new mount, which the desktop ejects in the end."""
    shutil.rmtree(_HOME / ".cache/thumbnails", ignore_errors=True)
    command = [sys.executable, "-m", "tests.support.request_log", str(_REQUESTS)]
    command += ["mount", "--foreground", "--bookmark", str(_PAST)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        if b"Mounted" not in server.stdout.readline():
            raise StepFailed("it could not be mounted")
        asked = [_try(step, manager, server.pid, pictures) for step in STEPS]
        if _run("gio", "mount", "--unmount", _PAST) or server.wait(_PATIENCE_S):
            raise StepFailed("the mount could not be ejected")
        # It would show the next mount, too, and warm its caches.
        _run("pkill", "--exact", manager.command)
        return asked


@contextmanager
def _screen() -> Iterator[None]:
    """A screen, and a window manager that makes each window as large as the screen."""
    out, into = os.pipe()
    screen = ["Xvfb", "-displayfd", str(into), "-screen", "0", "900x540x24", "-nolisten", "tcp"]
    with subprocess.Popen(screen, pass_fds=(into,), stderr=subprocess.DEVNULL) as server:
        os.close(into)
        with os.fdopen(out) as answer:
            os.environ["DISPLAY"] = f":{answer.readline().strip()}"
        with subprocess.Popen(["openbox"], stderr=subprocess.DEVNULL) as windows:
            yield
            windows.terminate()
        server.terminate()


def _try(step: Step, manager: Manager, server: int, pictures: Path) -> Asked:
    """Do a step, and see what is asked until it is done."""
    before, cpu_s = len(_requests()), _cpu_s(server)
    step.act(manager)
    _wait_until_quiet()
    if step.picture.startswith(manager.command):
        _take_picture(pictures / f"{step.picture}.png")
    lines = _requests()[before:]
    reads = [line.rsplit(" ", 1)[1] for line in lines if line.startswith("read ")]
    in_vain = sum(line.endswith((" ENOENT", " ENODATA", " ENOSYS")) for line in lines)
    return Asked(len(lines), in_vain, sum(map(int, reads)), _cpu_s(server) - cpu_s)


def _requests() -> list[str]:
    return _REQUESTS.read_text().splitlines()


def _cpu_s(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _wait_until_quiet() -> None:
    deadline = time.monotonic() + _PATIENCE_S
    count = -1
    while count != (count := len(_requests())):
        if time.monotonic() > deadline:
            raise StepFailed("it does not come to rest")
        time.sleep(_QUIET_S)


def _take_picture(path: Path) -> None:
    _run(
        "import",
        "-window",
        "root",
        "+dither",
        "-colors",
        str(_COLORS),
        "-define",
        "png:exclude-chunks=all",
        f"PNG8:{path}",
    )


def _run(*command: str | Path) -> int:
    """Run a command to its end; its exit code."""
    return subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode


def _press(*keys: str) -> None:
    for key in keys:
        _run("xdotool", "key", key)
        time.sleep(_KEY_S)


def _open(path: Path, *, command: str) -> None:
    """Have something shown, and wait until it is in front and asks nothing more."""
    subprocess.Popen([command, path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + _PATIENCE_S
    while path.stem not in _title_in_front():
        if time.monotonic() > deadline:
            raise StepFailed(f"{command} does not show {path}")
        time.sleep(_KEY_S)
    _wait_until_quiet()


def _title_in_front() -> str:
    asked = ["xdotool", "getactivewindow", "getwindowname"]
    return subprocess.run(asked, check=False, capture_output=True, text=True).stdout


def _open_in(folder: Path) -> Callable[[Manager], None]:
    return lambda manager: _open(folder, command=manager.command)


def _copy_out(manager: Manager) -> None:
    """Copy the pictures by the keyboard, and compare the copies."""
    harbour, copies = _SAVED / "Pictures/Harbour", _HOME / f"Restored by {manager.command}"
    copies.mkdir()
    _open(harbour, command=manager.command)
    _press("ctrl+a", "ctrl+c")
    _open(copies, command=manager.command)
    _press("ctrl+v")
    _wait_until_quiet()
    names = sorted(os.listdir(harbour))
    if filecmp.cmpfiles(harbour, copies, names, shallow=False) != (names, [], []):
        raise StepFailed(f"{manager.command} did not copy all that was to be copied")


def _open_older_pictures(manager: Manager) -> None:
    oldest = min((_PAST / "snapshots").iterdir())
    _open(oldest / _SAVED.relative_to(_PAST / "latest") / "Pictures/Harbour", command=manager.command)


def _search_in_thunar() -> None:
    _open(_SAVED, command="thunar")
    _press("ctrl+f")
    _run("xdotool", "type", "--delay", "50", "letter 1")
    _press("Return")


def _search_in_pcmanfm() -> None:
    subprocess.Popen(["pcmanfm", f"search://{_SAVED}?recursive=1&name=letter 1*"], stderr=subprocess.DEVNULL)


MANAGERS = (Manager("thunar", _search_in_thunar), Manager("pcmanfm", _search_in_pcmanfm))
STEPS = (
    Step("the mount opened", _open_in(_PAST), "pcmanfm-top"),
    Step("a snapshot's folder", _open_in(_SAVED)),
    Step("5,000 files", _open_in(_SAVED / "Projects/Notes")),
    Step("24 pictures, their thumbnails made", _open_in(_SAVED / "Pictures/Harbour"), "thunar-pictures"),
    Step("the same once more", _open_in(_SAVED / "Pictures/Harbour")),
    Step("the pictures in another snapshot", _open_older_pictures),
    Step("a film of 57 MiB", _open_in(_SAVED / "Videos")),
    Step("a picture looked at", lambda _: _open(_SAVED / "Pictures/Harbour/harbour 07.jpg", command="gpicview")),
    Step("the pictures copied out", _copy_out),
    Step("5,100 names searched through", lambda manager: manager.search(), "pcmanfm-search"),
    Step("all versions of a file", _open_in(_PAST / "versions/home/me/Documents/thesis.odt"), "thunar-versions"),
    Step("ten seconds of nothing", lambda _: time.sleep(_IDLE_S)),
)


def _table(columns: Sequence[Sequence[Asked]]) -> Iterator[str]:
    yield f"| | {' | '.join(manager.command for manager in MANAGERS)} |"
    yield "|---" * (len(MANAGERS) + 1) + "|"
    for step, *asked in zip(STEPS, *columns, strict=True):
        yield f"| {step.name} | {' | '.join(map(_asked_text, asked))} |"


def _asked_text(asked: Asked) -> str:
    read = f", {asked.read_bytes / 2**20:.1f} MiB" if asked.read_bytes else ""
    return f"{asked.requests:,} ({asked.in_vain:,}){read}, {asked.cpu_s * 1000:.0f} ms"


if __name__ == "__main__":
    sys.exit(main())
