"""The benchmark runs from end to end, beside restic where that is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.bench.steps import STEPS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    for number in range(12):
        path = folder / "small" / f"{number % 3}" / f"{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"letter {number}\n" * 100)
    for name, content in (("compressible", b"page " * 400_000), ("incompressible", os.urandom(1 << 20))):
        (folder / name).mkdir()
        (folder / name / "file").write_bytes(content)
    return folder


def bench(folder: Path, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    (folder / "tmp").mkdir()
    return subprocess.run(
        [sys.executable, "-m", "tests.bench", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "BORG": "", "PATH": os.defpath, "TMPDIR": str(folder / "tmp"), **variables},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_every_step_is_measured_and_nothing_is_left_behind(corpus: Path, tmp_path: Path) -> None:
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("this user cannot open /dev/fuse")
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in corpus.rglob("*") if path.is_file()}
    result, chart = tmp_path / "result.json", tmp_path / "chart.svg"
    done = bench(tmp_path, "--corpus", corpus, "--runs", "1", "--json", result, "--chart", chart)
    assert done.returncode == 0, done.stderr
    programs = json.loads(result.read_text())["programs"]
    for one in programs.values():
        assert list(STEPS) == list(one["steps"])
    own = programs["backthen"]["steps"]
    assert own["small"][0]["stored_bytes"] > own["unchanged"][0]["stored_bytes"] > 0
    assert own["check"][0]["anonymous_bytes"] > 64 << 20, "the key derivation alone takes as much"
    assert "| first snapshot, small files |" in done.stdout
    ElementTree.parse(chart)
    assert [] == list((tmp_path / "tmp").iterdir())
    assert before == {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in before}


def test_a_program_that_fails_is_named(corpus: Path, tmp_path: Path) -> None:
    broken = tmp_path / "restic"
    broken.write_text('#!/bin/sh\n[ "$1" = version ] && echo restic 0 && exit\necho Oh no\nexit 5\n')
    broken.chmod(0o755)
    done = bench(tmp_path, "--corpus", corpus, "--runs", "1", RESTIC=str(broken))
    assert done.returncode == 1
    assert "failed: " in done.stderr
    assert "Oh no" in done.stderr
