"""The same users as in tests/cli, and a program that is ready to be run very often."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import newcomer, past, tree, user
from tests.support.damage_scene import Scene, make_scene
from tests.support.prepared_program import PreparedProgram

__all__ = ["newcomer", "past", "tree", "user"]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PreparedProgram]:
    with PreparedProgram(tmp_path_factory.mktemp("prepared")) as program:
        yield program


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory, prepared: PreparedProgram) -> Scene:
    return make_scene(tmp_path_factory.mktemp("scene"), prepared)


@pytest.fixture
def mountpoint(scene: Scene) -> Iterator[Path]:
    folder = scene.user.home / "Past"
    folder.mkdir(exist_ok=True)
    yield folder
    subprocess.run(["fusermount3", "-u", "-z", "-q", str(folder)], check=False, stderr=subprocess.DEVNULL)
