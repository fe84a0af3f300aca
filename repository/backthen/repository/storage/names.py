"""The names of all objects of a repository (FORMAT.md, section 2), built and parsed in this one place. Pure."""

from __future__ import annotations

import re

from backthen.repository.ids import ObjectId, PackId, SnapshotId

CONFIG_NAME = "config"
FOLDERS = ("keys", "packs", "index", "roots", "log", "marks")
SPOOL = "tmp"
"""What is being made; never read, see the backends."""
UNLOCKED_PREFIX = "far-"
"""What temporary files of writers on other machines begin with: no lock tells if they are in use, only their age."""

_SHA = "[0-9a-f]{64}"
_OBJECT_NAME = re.compile(
    rf"config|(?:keys|index|roots|marks)/{_SHA}|packs/([0-9a-f]{{2}})/\1[0-9a-f]{{62}}|log/{_SHA}-{_SHA}", re.ASCII
)
_HEX_LENGTH = 64


def is_object_name(name: str) -> bool:
    """Whether the name stands in the table of FORMAT.md, section 2."""
    return _OBJECT_NAME.fullmatch(name) is not None


def is_leftover(name: str) -> bool:
    """Whether an empty storage may hold that: the top of a fresh disk, and what a killed `create` or its user left.

    That is what was being made, and key slots: they come before `config`, and without it they open nothing.
    """
    return name.partition("/")[0] in ("lost+found", SPOOL) or parse_key_name(name) is not None


def check_object_name(name: str) -> None:
    """Stop a name that no function of this module made, before it becomes a path.

    Raises:
        ValueError: it is not the name of an object.
    """
    if not is_object_name(name):
        raise ValueError(f"{name!r} is not the name of an object")


def check_folder(folder: str) -> None:
    """Stop a folder that holds no objects.

    Raises:
        ValueError: it is none of `FOLDERS`.
    """
    if folder not in FOLDERS:
        raise ValueError(f"{folder!r} is not a folder of objects")


def key_name(slot: ObjectId) -> str:
    """The name of a key slot."""
    return f"keys/{slot.hex()}"


def pack_name(pack: PackId) -> str:
    """The name of a pack."""
    text = pack.hex()
    return f"packs/{text[:2]}/{text}"


def index_name(index: ObjectId) -> str:
    """The name of an index object."""
    return f"index/{index.hex()}"


def root_name(root: SnapshotId) -> str:
    """The name of a root."""
    return f"roots/{root.hex()}"


def log_name(root: SnapshotId, entry: ObjectId) -> str:
    """The name of a log entry about `root`."""
    return f"log/{root.hex()}-{entry.hex()}"


def mark_name(mark: ObjectId) -> str:
    """The name of a mark."""
    return f"marks/{mark.hex()}"


def parse_key_name(name: str) -> ObjectId | None:
    """The id of a key slot, None when it is not the name of one."""
    return _parse_last(name, "keys/")


def parse_pack_name(name: str) -> PackId | None:
    """The id of a pack, None when it is not the name of one."""
    id_ = _parse_last(name, "packs/")
    return None if id_ is None else PackId(id_)


def parse_index_name(name: str) -> ObjectId | None:
    """The id of an index object, None when it is not the name of one."""
    return _parse_last(name, "index/")


def parse_root_name(name: str) -> SnapshotId | None:
    """The id of a root, None when it is not the name of one."""
    id_ = _parse_last(name, "roots/")
    return None if id_ is None else SnapshotId(id_)


def parse_log_name(name: str) -> tuple[SnapshotId, ObjectId] | None:
    """The ids of root and log entry, None when it is not the name of a log entry."""
    entry = _parse_last(name, "log/")
    if entry is None:
        return None
    return SnapshotId(ObjectId(bytes.fromhex(name[len("log/") : len("log/") + _HEX_LENGTH]))), entry


def parse_mark_name(name: str) -> ObjectId | None:
    """The id of a mark, None when it is not the name of one."""
    return _parse_last(name, "marks/")


def _parse_last(name: str, folder: str) -> ObjectId | None:
    if not name.startswith(folder) or not is_object_name(name):
        return None
    return ObjectId(bytes.fromhex(name[-_HEX_LENGTH:]))
