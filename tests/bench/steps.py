"""What is measured: the same work for every program, step by step."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.corpus import Corpus, count
from tests.bench.running import Bench, Taken, check_equal, run, run_storing

STEPS = {
    "small": "first snapshot, small files",
    "unchanged": "the same, nothing changed",
    "changed": "the same, five files changed",
    "compressible": "first snapshot, large file, compressible",
    "incompressible": "first snapshot, large file, incompressible",
    "restore-small": "restore of the small files",
    "restore-large": "restore of the compressible file",
    "check": "check, all data read",
    "mount-ready": "mount: until it can be used",
    "walk-cold": "mount: walk with stat of all small files",
    "walk-warm": "mount: the same again",
    "read": "mount: large file read from start to end",
    "random-p50": "mount: 4 KiB at a random place, median",
    "random-p99": "mount: 4 KiB at a random place, 99 of 100",
    "copy": "mount: cp -a of small files",
    "mount": "mount: all of it",
}
_CHANGED_FILES = 5


Record = Callable[[str, Taken], None]


def measure_files(bench: Bench, corpus: Corpus, record: Record) -> None:
    """All steps but those of the mount, in a new repository.

    Raises:
        StepFailed: the program failed, or did not restore what was saved.
    """
    run(bench, bench.program.init(bench.place))
    record("small", _saved(bench, "small-1", corpus.small))
    record("unchanged", _saved(bench, "small-2", corpus.small))
    with _changed(corpus.small):
        record("changed", _saved(bench, "small-3", corpus.small))
    record("compressible", _saved(bench, "compressible", corpus.compressible))
    record("incompressible", _saved(bench, "incompressible", corpus.incompressible))
    record("restore-small", _restored(bench, "small-1", corpus.small))
    record("restore-large", _restored(bench, "compressible", corpus.compressible))
    record("check", run(bench, bench.program.check()))


def _saved(bench: Bench, name: str, source: Path) -> Taken:
    return run_storing(bench, bench.program.snapshot(name, source))


def _restored(bench: Bench, name: str, source: Path) -> Taken:
    target = bench.place.folder / "restored"
    target.mkdir()
    taken = run(bench, bench.program.restore(name, source, target))
    check_equal(source, count(bench.program.restored(source, target)))
    shutil.rmtree(target)
    return taken


@contextmanager
def _changed(folder: Path) -> Iterator[None]:
    """A few files have another last line inside, and are as they were afterwards."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    step = max(len(files) // _CHANGED_FILES, 1)
    before = [(path, path.stat(), path.read_bytes()) for path in files[::step][:_CHANGED_FILES]]
    try:
        for path, _, content in before:
            path.write_bytes(content + b"changed by the benchmark\n")
        yield
    finally:
        for path, status, content in before:
            path.write_bytes(content)
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
