"""Users who are copied with all they have, so that each copy can be killed at another moment."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.cli.conftest import User
from tests.support.damage_scene import Contents, contents_of
from tests.support.prepared_program import PreparedProgram


def copy_of(user: User, place: Path) -> User:
    """The same user in another home, with all that is there."""
    shutil.copytree(user.home, place)
    variables = {name: value.replace(str(user.home), str(place)) for name, value in user.variables.items()}
    return User(place, variables)


def shown_ids(prepared: PreparedProgram, user: User) -> list[str]:
    """The ids of all snapshots, oldest first."""
    snapshots = prepared.run(user, "snapshot", "list", "--json").document["snapshots"]
    assert isinstance(snapshots, list)
    return [snapshot["id"] for snapshot in snapshots]


def restored(prepared: PreparedProgram, user: User, id_: str, tree: Path) -> Contents:
    """What a snapshot of `tree` holds."""
    target = user.home / "target"
    prepared.run(user, "restore", id_, "--target", str(target))
    found = contents_of(target / str(tree).lstrip("/"))
    shutil.rmtree(target)
    return found


def stored_bytes(user: User) -> int:
    """Bytes of all files in the repository."""
    return sum(path.stat().st_size for path in (user.home / "repository").rglob("*") if path.is_file())
