"""Makes what is large to measure with: trees, one very large folder, a sparse file, long histories, large indexes.

python -m tests.support.generator tree DIR --files 1000000 --folders 20000
python -m tests.support.generator folder DIR --files 300000
python -m tests.support.generator sparse FILE --bytes 100000000000
python -m tests.support.generator snapshots REPOSITORY --snapshots 2000
python -m tests.support.generator home REPOSITORY --snapshots 2000
python -m tests.support.generator index REPOSITORY --blobs 5000000

A repository is made anew, and opens with the password that PASSWORD is.
"""

from __future__ import annotations

import argparse
import os
import random
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backthen.repository import (
    Client,
    Folders,
    Repository,
    Silent,
    SnapshotRequest,
    create_repository,
    create_snapshot,
    open_storage,
)
from backthen.repository import format as fmt
from backthen.repository.crypto import object_id
from backthen.repository.ids import ObjectId, PackId
from backthen.repository.index import encode_index
from backthen.repository.model.records import IndexedPack
from backthen.repository.storage import index_name

PASSWORD = "correct horse battery staple"
_CONTENT_BYTES = 200
_SPARSE_STEPS = 1000
_SPARSE_DATA_BYTES = 4096
_HISTORY_FILES = 20
_HOME_FOLDERS = {"Documents/Project": (40, 50), "Pictures/Album": (30, 60), ".config/profile": (1, 300)}
"""The folders of a home: how many, and how many files each has at first."""
_PROFILE_FILES_CHANGED = 30
_BLOBS_PER_PACK = 8192
_BLOBS_PER_SEGMENT = 64
_PACKS_PER_INDEX = 8


def make_tree(folder: Path, *, files: int, folders: int) -> None:
    """So many small files with different contents, spread evenly over folders two levels deep."""
    per_folder = files // folders
    number = 0
    for index in range(folders):
        inner = folder / f"{index // 100:04d}" / f"{index % 100:02d}"
        inner.mkdir(parents=True)
        number = _fill(inner, per_folder, number)


def make_folder(folder: Path, *, files: int) -> None:
    """One folder with so many small files."""
    folder.mkdir(parents=True)
    _fill(folder, files, 0)


def make_sparse(path: Path, *, size_bytes: int) -> None:
    """A file of that length with a few pages of data far apart."""
    with path.open("wb") as file:
        file.truncate(size_bytes)
        for step in range(_SPARSE_STEPS):
            os.pwrite(file.fileno(), b"%08d" % step * (_SPARSE_DATA_BYTES // 8), size_bytes // _SPARSE_STEPS * step)


def make_history(folder: Path, *, snapshots: int) -> None:
    """A repository with so many snapshots of a small folder, in which one file changes each time."""
    with _new_repository(folder) as repository, tempfile.TemporaryDirectory(prefix="backthen-history.") as made:
        source = Path(made) / "source"
        make_folder(source, files=_HISTORY_FILES)
        request = SnapshotRequest(paths=(os.fsencode(source),), host="growth")
        for number in range(snapshots):
            (source / "diary.txt").write_text(f"day {number}\n" * 20)
            create_snapshot(repository, request, Silent())


def make_home_history(folder: Path, *, snapshots: int) -> None:
    """A repository with so many snapshots of a home of 4,100 files, day by day.

    Each day some documents are rewritten and one is given up, a document and a picture are new, and a program keeps its
    state in a folder of files of which a tenth changes.
    """
    rng = random.Random(1)
    with _new_repository(folder) as repository, tempfile.TemporaryDirectory(prefix="backthen-history.") as made:
        home = Path(made) / "home" / "me"
        for name, (count, files) in _HOME_FOLDERS.items():
            for number in range(count):
                make_folder(home / f"{name} {number:02d}", files=files)
        request = SnapshotRequest(paths=(os.fsencode(home),), host="growth")
        documents, pictures = (sorted((home / name).iterdir()) for name in ("Documents", "Pictures"))
        profile = sorted((home / ".config/profile 00").iterdir())
        for day in range(snapshots):
            project = rng.choice(documents)
            for path in [*rng.sample(sorted(project.iterdir()), 8), *rng.sample(profile, _PROFILE_FILES_CHANGED)]:
                path.write_text(f"day {day}\n" * 20)
            rng.choice(sorted(project.iterdir())).unlink()
            for path in (project / f"new of day {day:04d}.txt", rng.choice(pictures) / f"picture {day:04d}.jpg"):
                path.write_text(f"made on day {day}\n")
            create_snapshot(repository, request, Silent())


def make_index(folder: Path, *, blobs: int) -> None:
    """A repository without a snapshot whose index describes so many blobs, in packs that are not there."""
    with _new_repository(folder) as repository:
        left = blobs
        while left > 0:
            packs: list[IndexedPack] = []
            while left > 0 and len(packs) < _PACKS_PER_INDEX:
                packs.append(_invented_pack(min(left, _BLOBS_PER_PACK)))
                left -= _BLOBS_PER_PACK
            data = encode_index(repository.keys, fmt.PACK_CLASS_DATA, packs)
            repository.storage.put(index_name(object_id(data)), data)


@contextmanager
def _new_repository(folder: Path) -> Iterator[Repository]:
    """A repository; the cache and state that made it are gone afterwards, as if it came from another machine."""
    with tempfile.TemporaryDirectory(prefix="backthen-generator.") as made:
        folders = Folders(cache=Path(made) / "cache", state=Path(made) / "state")
        client = Client(host="growth", user="generator", program="generator")
        with create_repository(open_storage(str(folder)), PASSWORD.encode(), folders, client) as repository:
            yield repository


def _invented_pack(blobs: int) -> IndexedPack:
    counts = [min(_BLOBS_PER_SEGMENT, blobs - at) for at in range(0, blobs, _BLOBS_PER_SEGMENT)]
    numbers = struct.Struct(f">{len(counts)}I")
    return IndexedPack(
        PackId(ObjectId(os.urandom(fmt.ID_BYTES))),
        numbers.pack(*(count * 1000 for count in counts)),
        numbers.pack(*counts),
        os.urandom(fmt.ID_PREFIX_BYTES * blobs),
    )


def _fill(folder: Path, count: int, number: int) -> int:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for _ in range(count):
            file = os.open(f"document {number:08d}.txt", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=descriptor)
            os.write(file, b"content of document number %d " % number * (_CONTENT_BYTES // 30))
            os.close(file)
            number += 1
    finally:
        os.close(descriptor)
    return number


def main() -> None:
    """Make what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("tree", "folder", "sparse", "snapshots", "home", "index"))
    parser.add_argument("target", type=Path)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--folders", type=int, default=20_000)
    parser.add_argument("--bytes", type=int, default=100_000_000_000)
    parser.add_argument("--snapshots", type=int, default=2000)
    parser.add_argument("--blobs", type=int, default=5_000_000)
    arguments = parser.parse_args()
    if arguments.what == "tree":
        make_tree(arguments.target, files=arguments.files, folders=arguments.folders)
    elif arguments.what == "folder":
        make_folder(arguments.target, files=arguments.files)
    elif arguments.what == "sparse":
        make_sparse(arguments.target, size_bytes=arguments.bytes)
    elif arguments.what == "snapshots":
        make_history(arguments.target, snapshots=arguments.snapshots)
    elif arguments.what == "home":
        make_home_history(arguments.target, snapshots=arguments.snapshots)
    else:
        make_index(arguments.target, blobs=arguments.blobs)


if __name__ == "__main__":
    main()
