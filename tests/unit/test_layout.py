from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from backthen import repository

ROOT = Path(__file__).resolve().parents[2]
SOURCE_ROOTS = (ROOT / "repository", ROOT / "fsmount", ROOT / "cli")
CODE_FOLDERS = (*SOURCE_ROOTS, ROOT / "tests", ROOT / "ci")
LINES_MAX = 500


def code_files() -> Iterator[Path]:
    for folder in CODE_FOLDERS:
        yield from folder.rglob("*.py")
    yield from (path for path in (ROOT / "ci").iterdir() if path.read_bytes().startswith(b"#!"))


def test_the_namespace_has_no_init_file() -> None:
    strays = [path for folder in CODE_FOLDERS for path in folder.rglob("backthen/__init__.py")]
    assert [] == strays


@pytest.mark.parametrize("source_root", SOURCE_ROOTS, ids=lambda path: str(path.name))
def test_a_source_root_holds_one_package_of_the_namespace(source_root: Path) -> None:
    packages = [path.name for path in (source_root / "backthen").iterdir() if path.name != "__pycache__"]
    assert [source_root.name] == packages


def test_every_folder_of_a_package_has_an_init_file() -> None:
    """Without one it is left out when the imports are checked."""
    folders = {path.parent for root in SOURCE_ROOTS for path in (root / "backthen").rglob("*.py")}
    assert [] == sorted(str(folder) for folder in folders if not (folder / "__init__.py").is_file())


def test_no_code_file_is_long() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_bytes().splitlines()) for path in code_files()}
    assert {} == {name: length for name, length in lengths.items() if length > LINES_MAX}


def test_everything_that_the_engine_offers_can_be_had() -> None:
    """What is imported when it is asked for is named twice: for the type checker, and for the import."""
    assert [] == [name for name in repository.__all__ if not hasattr(repository, name)]
