"""What people read their files with, on a mount and on the folder that was saved: the answers are the same.

A mount differs from the folder in what a directory's size and links are, so these are left out of what is compared.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.conftest import User, settle
from tests.support.role import Role, role

TIMES = "--time-style=+%s.%N"
ENTRIES = r"%y %m %U %G %T@ %P\0"
SIZED_ENTRIES = r"%y %m %U %G %T@ %P %s %n %l\0"

MAKE_TREE = """
import pathlib, sys
from tests.support.sample_tree import make_sample_tree
tree = pathlib.Path(sys.argv[1])
tree.mkdir()
make_sample_tree(tree, as_root=sys.argv[2] == "root")
"""

MAKE_WORK_TREE = """
cd "$1" && git init --quiet --initial-branch=main
for name in kept changed renamed deleted; do seq 200 >$name; done
git add . && git -c user.name=me -c user.email=me@example.org commit --quiet --message=First
echo more >>changed && git mv renamed "new name" && rm deleted && echo x >untracked
"""

MAKE_DATABASE = """
create table numbers(one, text);
create index by_text on numbers(text);
with recursive counted(n) as (select 0 union all select n + 1 from counted where n < 4999)
insert into numbers select n, printf('%03d of many', n * 7919 % 1000) from counted;
"""

MAP = """
import hashlib, mmap, random, sys
with open(sys.argv[1], "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as shared:
    places = random.Random(3).choices(range(len(shared)), k=2000)
    print(hashlib.sha256(shared).hexdigest(), bytes(shared[place] for place in places).hex())
with open(sys.argv[1], "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as private:
    private[5:10] = b"never"
    print(hashlib.sha256(private).hexdigest())
"""

SEND = """
import os, sys, tempfile
kind, path = sys.argv[1:]
with open(path, "rb") as source, tempfile.TemporaryFile() as target:
    size = os.fstat(source.fileno()).st_size
    if kind == "sendfile":
        while sent := os.sendfile(target.fileno(), source.fileno(), None, size):
            pass
    elif kind == "splice":
        out, into = os.pipe()
        while moved := os.splice(source.fileno(), into, 65536):
            while moved:
                moved -= os.splice(out, target.fileno(), moved)
    target.seek(0)
    sys.stdout.buffer.write(target.read())
"""

SEEK = """
import os, sys
file = os.open(sys.argv[1], os.O_RDONLY)
end, size = 0, os.fstat(file).st_size
try:
    while end < size:
        begin = os.lseek(file, end, os.SEEK_DATA)
        end = os.lseek(file, begin, os.SEEK_HOLE)
        print(begin, end)
    os.lseek(file, size, os.SEEK_DATA)
except OSError as error:
    print(end, error.strerror)
"""


@dataclass(frozen=True)
class Place:
    """Somebody's folder, and the same folder in a mount."""

    role: Role
    tree: Path
    mounted: Path

    def call(self, script: str, *arguments: str | Path) -> bytes:
        """What a shell script prints; it must go well."""
        return self.role.call("sh", "-euc", script, "sh", *arguments)

    def python(self, script: str, *arguments: str | Path) -> bytes:
        """What a Python script prints; it must go well."""
        done = self.role.python("-c", script, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def both(self, script: str) -> tuple[bytes, bytes]:
        """What a shell script prints in the folder, and in the mounted one."""
        return self.call(f'cd "$1"; {script}', self.tree), self.call(f'cd "$1"; {script}', self.mounted)

    @property
    def copy(self) -> Path:
        """Where a copy can be made."""
        return self.tree.parent / "copies" / "copy"

    def differences_of_copy(self) -> list[bytes]:
        """What is not in the copy as it is in the folder."""
        compared = self.role.python("-m", "tests.support.comparison", self.tree, self.copy)
        assert compared.stderr == b""
        return compared.stdout.splitlines()

    def blocks(self, path: Path) -> int:
        return int(self.role.call("stat", "--format=%b", path))


@pytest.fixture(scope="module", params=["root", "user"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    if os.geteuid() != 0 and (request.param == "root" or not os.access("/dev/fuse", os.R_OK | os.W_OK)):
        pytest.skip("needs root")
    with role(request.param) as owner:
        home, tree = owner.folder / "home", owner.folder / "tree"
        user = User(home, prefix=owner.prefix)
        (home / "Past").mkdir(parents=True)
        (owner.folder / "copies").mkdir()
        settle(user)
        owner.give(owner.folder)
        found = Place(owner, tree, home / f"Past/latest{tree}")
        _make_tree(found)
        user.run("init")
        user.snapshot(str(tree))
        user.run("mount", str(home / "Past"))
        try:
            yield found
        finally:
            user.run("umount", str(home / "Past"))


def _make_tree(place: Place) -> None:
    """One of everything, and a work tree of git, a database, a program and a script."""
    tree, work = place.tree, place.tree / "work"
    place.python(MAKE_TREE, tree, "root" if place.role.is_root else "user")
    if not place.role.is_root:
        (tree / "mode 0").unlink()  # Root can read it, nobody else.
    place.call('mkdir "$1"', work)
    place.call(MAKE_WORK_TREE, work)
    place.call('sqlite3 "$1" "$2"', tree / "data.sqlite", MAKE_DATABASE)
    place.call('cp "$1" "$2"', shutil.which("factor") or "/usr/bin/factor", tree / "program")
    place.call(r'printf "#!/bin/sh\necho \"\$0\" is called with \"\$@\"\n" >"$1"; chmod +x "$1"', tree / "script")


@pytest.fixture(autouse=True)
def no_copy(place: Place) -> Iterator[None]:
    yield
    place.call('if [ -e "$1" ]; then chmod -R u+rwx "$1"; rm -rf "$1"; fi', place.copy)


def test_ls(place: Place) -> None:
    saved, mounted = (_sized_alike(listing) for listing in place.both(f"ls -laR {TIMES} ."))

    assert len(saved) > 150
    assert saved == mounted


def _sized_alike(listing: bytes) -> list[bytes]:
    """A listing without the links and sizes of directories, and the sums of sizes."""
    lines = re.sub(rb"(?m)^(d\S+ +)\d+( \S+ +\S+ +)\d+", rb"\1\2", listing).splitlines()
    return [re.sub(rb" +", b" ", line) for line in lines if not line.startswith(b"total ")]


@pytest.mark.parametrize(
    "test",
    ["-true", "-name '*name*'", "-size +1M", "-perm /6000", "-links +2 ! -type d", "-newermt 2017-07-15", "-type l"],
)
def test_find(place: Place, test: str) -> None:
    script = rf"find . {test} \( -type d -printf '{ENTRIES}' -o -printf '{SIZED_ENTRIES}' \) | sort -z"
    saved, mounted = place.both(script)

    assert saved
    assert saved == mounted


@pytest.mark.parametrize("options", ["-rc -a e", "-rl 'one inode'", "-rhoE '19[0-9]'"])
def test_grep(place: Place, options: str) -> None:
    saved, mounted = place.both(f"grep {options} . | sort")

    assert saved
    assert saved == mounted


def test_rsync(place: Place) -> None:
    compare = "rsync -aHAXS --checksum --delete --dry-run --itemize-changes"
    place.call('rsync -aHAXS --checksum "$1/" "$2"', place.mounted, place.copy)

    assert place.differences_of_copy() == []
    assert place.blocks(place.copy / "sparse") <= place.blocks(place.tree / "sparse")
    assert place.call(f'{compare} "$1/" "$2"', place.mounted, place.tree) == b""
    assert place.call(f'{compare} "$1/" "$2"', place.tree, place.copy) == b""


@pytest.mark.parametrize("sparse", ["auto", "always"])
def test_cp(place: Place, sparse: str) -> None:
    place.call('cp -a --sparse="$3" "$1" "$2"', place.mounted, place.copy, sparse)

    assert place.differences_of_copy() == []
    assert place.blocks(place.copy / "sparse") <= place.blocks(place.tree / "sparse")


def test_tar(place: Place) -> None:
    options = "--sparse --acls --xattrs --xattrs-include='*' --exclude=./socket"
    place.call(f'mkdir "$2"; tar -C "$1" {options} -cf - . | tar -C "$2" {options} -xpf -', place.mounted, place.copy)

    assert [line for line in place.differences_of_copy() if b"'socket'" not in line] == []
    assert place.blocks(place.copy / "sparse") <= place.blocks(place.tree / "sparse")
    assert place.call(f'tar -C "$1" {options} -cf - . | tar -C "$2" --compare', place.tree, place.mounted) == b""


@pytest.mark.parametrize(
    "command", ["status --porcelain=v2 --branch", "diff", "log --stat", "fsck --full", "stash list"]
)
def test_git(place: Place, command: str) -> None:
    saved, mounted = place.both(f"cd work; git {command}")

    assert saved == mounted
    assert (b"new name\trenamed" in mounted) == command.startswith("status")


def test_sqlite(place: Place) -> None:
    query = "pragma integrity_check; select count(*), sum(one), max(text) from numbers where text between '2' and '6';"
    saved, mounted = place.both(f'sqlite3 "file:$PWD/data.sqlite?immutable=1" "{query}" .dump')

    assert saved.startswith(b"ok\n2")
    assert saved == mounted


@pytest.mark.parametrize("name", ["large", "sparse", "small"])
def test_mmap(place: Place, name: str) -> None:
    assert place.python(MAP, place.tree / name) == place.python(MAP, place.mounted / name)


@pytest.mark.parametrize("kind", ["sendfile", "splice"])
@pytest.mark.parametrize("name", ["large", "sparse"])
def test_sending_without_a_buffer(place: Place, kind: str, name: str) -> None:
    assert (place.tree / name).read_bytes() == place.python(SEND, kind, place.mounted / name)


@pytest.mark.parametrize("name", ["sparse", "large", "small"])
def test_seeking_finds_the_holes_of_the_file(place: Place, name: str) -> None:
    saved = place.python(SEEK, place.tree / name)

    assert (len(saved.splitlines()) > 2) == (name == "sparse")
    assert saved == place.python(SEEK, place.mounted / name)


def test_program_and_script_run(place: Place) -> None:
    saved, mounted = place.both("./program 5040; ./script once 'and again'")

    assert saved == b"5040: 2 2 2 2 3 3 5 7\n./script is called with once and again\n"
    assert saved == mounted
