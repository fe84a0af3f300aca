"""The same users as in tests/cli, and a program that is ready to be run very often."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cli.conftest import newcomer, past, tree, user
from tests.support.prepared_program import PreparedProgram

__all__ = ["newcomer", "past", "prepared", "tree", "user"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PreparedProgram]:
    with PreparedProgram(tmp_path_factory.mktemp("prepared")) as program:
        yield program
