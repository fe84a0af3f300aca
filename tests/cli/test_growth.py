"""The measurement of growth runs from end to end, at small sizes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def growth(*arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.bench.growth", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.parametrize(
    ("kind", "divide", "sizes"),
    [("snapshots", 500, [1, 1, 2, 4]), ("home", 500, [1, 1, 2, 4]), ("index", 20_000, [31, 62, 125, 250])],
)
def test_every_step_is_measured_at_four_sizes(kind: str, divide: int, sizes: list[int], tmp_path: Path) -> None:
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("this user cannot open /dev/fuse")
    (tmp_path / "tmp").mkdir()
    done = growth(kind, "--divide", str(divide), "--json", tmp_path / "curves.json", folder=tmp_path / "tmp")
    assert done.returncode == 0, done.stderr
    curves = json.loads((tmp_path / "curves.json").read_text())
    assert {kind} == {curve["kind"] for curve in curves}
    assert all(sizes == curve["sizes"] and len(curve["taken"]) == 4 for curve in curves)
    assert len([line for line in done.stdout.splitlines() if line.startswith("|")]) == len(curves) + 2
    assert [] == list((tmp_path / "tmp").iterdir())


def test_an_unknown_kind_is_named(tmp_path: Path) -> None:
    done = growth("forest", folder=tmp_path)
    assert done.returncode == 2
    assert "forest is not one of tree, folder, snapshots, home, index" in done.stderr
