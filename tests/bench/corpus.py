"""What is saved in a benchmark: folders of this machine's own files, and of noise.

A corpus is a folder that holds three others. Those that are there are used as they are, the rest is made:
`small` has many small files, `compressible` one large file like a disk image, `incompressible` one like a film.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

_SOURCES = (Path("/usr/include"), Path("/usr/share"))
_IMAGE_SOURCE = Path("/usr/lib")
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is made: files from each source (None for all of them), bytes of the two large files."""

    files: int | None
    compressible: int
    incompressible: int


QUICK = Sizes(files=3000, compressible=256 * _MIB, incompressible=128 * _MIB)
FULL = Sizes(files=None, compressible=2048 * _MIB, incompressible=1024 * _MIB)


@dataclass(frozen=True, slots=True)
class Corpus:
    """The folders, with all links resolved, and the large file in each of the last two."""

    small: Path
    compressible: Path
    incompressible: Path

    @property
    def image(self) -> Path:
        """The large file that compresses."""
        return _largest(self.compressible)

    @property
    def media(self) -> Path:
        """The large file that does not."""
        return _largest(self.incompressible)

    @property
    def part(self) -> Path:
        """The first folder of the small files, or all of them where there is none."""
        return next((path for path in sorted(self.small.iterdir()) if path.is_dir()), self.small)


def make_corpus(folder: Path, sizes: Sizes) -> Corpus:
    """The corpus in a folder; what is missing of it is made."""
    small, compressible, incompressible = (folder / name for name in ("small", "compressible", "incompressible"))
    if not small.exists():
        for source in _SOURCES:
            _copy(source, small / source.name, sizes.files)
    if not compressible.exists():
        compressible.mkdir(parents=True)
        _write_image(compressible / "image", sizes.compressible)
    if not incompressible.exists():
        incompressible.mkdir(parents=True)
        _write_noise(incompressible / "media", sizes.incompressible)
    return Corpus(small.resolve(), compressible.resolve(), incompressible.resolve())


def count(folder: Path) -> tuple[int, int]:
    """How many names are in a folder, each of them examined, and the bytes of its regular files."""
    names = size = 0
    waiting = [str(folder)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                names += 1
                if stat.S_ISDIR(status.st_mode):
                    waiting.append(entry.path)
                elif stat.S_ISREG(status.st_mode):
                    size += status.st_size
    return names, size


def _files(folder: Path) -> Iterator[Path]:
    """Regular files and symbolic links, in an order that is the same every time."""
    for where, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(where, name)
            if path.is_symlink() or path.is_file():
                yield path


def _copy(source: Path, target: Path, files: int | None) -> None:
    for path in islice(_files(source), files):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy, follow_symlinks=False)


def _write_image(path: Path, size: int) -> None:
    """Programs and libraries one after another, as they lie on a disk."""
    with path.open("wb") as image:
        for file in _files(_IMAGE_SOURCE):
            if file.is_symlink():
                continue
            with file.open("rb") as content:
                while (room := size - image.tell()) > 0 and (data := content.read(min(room, _MIB))):
                    image.write(data)


def _write_noise(path: Path, size: int) -> None:
    with path.open("wb") as media:
        for _ in range(size // _MIB):
            media.write(os.urandom(_MIB))


def _largest(folder: Path) -> Path:
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
