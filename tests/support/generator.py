"""Makes large trees to measure with: many files in many folders, one very large folder, a sparse file.

python -m tests.support.generator tree DIR --files 1000000 --folders 20000
python -m tests.support.generator folder DIR --files 300000
python -m tests.support.generator sparse FILE --bytes 100000000000
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

_CONTENT_BYTES = 200
_SPARSE_STEPS = 1000
_SPARSE_DATA_BYTES = 4096


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
    parser.add_argument("what", choices=("tree", "folder", "sparse"))
    parser.add_argument("target", type=Path)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--folders", type=int, default=20_000)
    parser.add_argument("--bytes", type=int, default=100_000_000_000)
    arguments = parser.parse_args()
    if arguments.what == "tree":
        make_tree(arguments.target, files=arguments.files, folders=arguments.folders)
    elif arguments.what == "folder":
        make_folder(arguments.target, files=arguments.files)
    else:
        make_sparse(arguments.target, size_bytes=arguments.bytes)


if __name__ == "__main__":
    main()
