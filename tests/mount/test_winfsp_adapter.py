"""The adapter for WinFsp under winfspy: what only Windows asks for."""

from __future__ import annotations

import errno
import inspect
import logging
import os
import signal
import threading
from pathlib import Path
from unittest.mock import Mock

import pytest

from backthen.fsmount.view import Owner, View, ViewError, history_view
from backthen.repository import Entry, EntryType, monotonic_ns
from tests.mount.sample import MANY, sample_history
from tests.mount.test_behaviour import refusal
from tests.mount.winfsp_world import (
    ATTRIBUTE_DIRECTORY,
    ATTRIBUTE_REPARSE_POINT,
    OPEN_DIRECTORY,
    OPEN_NO_DIRECTORY,
    OPEN_REPARSE_POINT,
    READ_ATTRIBUTES,
    READ_DATA,
    READER,
    Volume,
    WinFspWorld,
)
from tests.support.history import Folder, MemoryHistory
from tests.support.winfsp_binding import OBJECT_PATH_NOT_FOUND, REPARSE, Pointer, ffi, native
from tests.unit.test_adapter_parts import meanings

# isort: split
from winfspy import BaseFileSystemOperations

from backthen.fsmount import MountRefused
from backthen.fsmount.adapters.winfspy import STATUSES, Operations, current_user_sid, serve_view

WRITE_PROTECTED = 0xC00000A2
CHANGES = {
    "can_delete", "create", "delete_reparse_point", "overwrite", "rename", "set_basic_info", "set_delete",
    "set_file_size", "set_reparse_point", "set_security", "set_volume_label", "write",
}  # fmt: skip
ANSWERED = {
    "cleanup", "close", "flush", "get_dir_info_by_name", "get_file_info", "get_reparse_point", "get_security",
    "get_security_by_name", "get_volume_info", "open", "read", "read_directory", "resolve_reparse_points",
}  # fmt: skip
NEVER_ASKED = {"control", "get_stream_info"}
"""The volume's parameters say that it has neither device control nor named streams."""


@pytest.fixture
def world() -> WinFspWorld:
    """The sample history."""
    return WinFspWorld()


def _view(*trees: Folder) -> tuple[View, MemoryHistory]:
    history = MemoryHistory()
    for number, tree in enumerate(trees):
        history.add(tree, started_ns=number)
    return history_view(history, Owner(0, 0), monotonic_ns), history


def _odd_world() -> WinFspWorld:
    history = MemoryHistory()
    write = history.writer
    history.add(
        Folder(
            {
                b"README": write.file(b"upper"),
                b"readme": write.file(b"lower"),
                b"Mixed": Folder({"Gr\u00fc\u00dfe.txt".encode(): write.file(b"greetings")}),
                b"to-folder": _link(b"Mixed"),
                b"to-top": _link(b"/latest"),
                b"beyond": _link(b"../../../../../../../etc"),
                b"round": _link(b"round"),
                b"to-file": _link(b"./Mixed/../README"),
                b"aux.c": write.file(b"device"),
            }
        )
    )
    return WinFspWorld(history_view(history, Owner(0, 0), monotonic_ns))


def _link(target: bytes) -> Entry:
    return Entry(b"", EntryType.SYMLINK, 0o777, 1, 1, target=target, size=len(target))


def _read(volume: Volume, path: str) -> bytes:
    context, record = volume.open(path, READ_DATA, OPEN_NO_DIRECTORY)
    buffer, p_read = ffi.new("char[]", record.size), ffi.new("ULONG *")
    assert volume.interface.Read(volume.file_system, context, buffer, 0, record.size, p_read) == 0
    volume.close(context)
    return bytes(ffi.buffer(buffer, p_read[0]))


def test_table_has_every_meaning_and_nothing_else() -> None:
    assert set(STATUSES) == meanings(ViewError)


def test_every_operation_of_winfspy_is_decided_on() -> None:
    functions = inspect.getmembers(BaseFileSystemOperations, inspect.isfunction)
    operations = {name for name, _ in functions if not name.startswith(("_", "ll_"))}

    assert operations == CHANGES | ANSWERED | NEVER_ASKED
    assert {name for name in vars(Operations) if not name.startswith("_")} == CHANGES | ANSWERED


def test_every_change_is_refused(world: WinFspWorld) -> None:
    volume = world.volume
    context, _ = volume.open("\\latest\\kinds\\file", READ_DATA)
    info, used = ffi.new("FSP_FSCTL_FILE_INFO *"), ffi.new("ULONG *")
    data = ffi.new("char[]", 10)
    calls: dict[str, tuple[object, ...]] = {
        "SetVolumeLabel": ("new", ffi.new("FSP_FSCTL_VOLUME_INFO *")),
        "Create": ("\\new", 0, 0, 0, ffi.NULL, 0, ffi.new("PVOID *"), info),
        "Overwrite": (context, 0, 0, 0, info),
        "Write": (context, data, 0, 10, 0, 0, used, info),
        "SetBasicInfo": (context, 0, 0, 0, 0, 0, info),
        "SetFileSize": (context, 0, 0, info),
        "CanDelete": (context, "\\latest\\kinds\\file"),
        "Rename": (context, "\\latest\\kinds\\file", "\\new", 0),
        "SetSecurity": (context, 0, ffi.NULL),
        "SetReparsePoint": (context, "\\latest\\kinds\\file", data, 10),
        "DeleteReparsePoint": (context, "\\latest\\kinds\\file", data, 10),
    }

    for name, arguments in calls.items():
        assert getattr(volume.interface, name)(volume.file_system, *arguments) == WRITE_PROTECTED, name
    # winfspy, which has to work with older versions of WinFsp, has this one in its Python part alone.
    operations = ffi.from_handle(volume.file_system.UserContext)
    assert operations.ll_set_delete(context, ffi.new("WCHAR[]", "\\latest"), 1) == WRITE_PROTECTED
    volume.close(context)
    assert world.read(b"latest/kinds/file", 0, 10) == b"hello\n"


def test_volume_is_as_large_as_what_is_stored_and_full(world: WinFspWorld) -> None:
    info = ffi.new("FSP_FSCTL_VOLUME_INFO *")

    assert world.volume.interface.GetVolumeInfo(world.volume.file_system, info) == 0

    assert info.TotalSize == world.view.capacity(world.view.source).stored_bytes > 0
    assert info.FreeSize == 0
    assert bytes(ffi.buffer(info.VolumeLabel, info.VolumeLabelLength)).decode("utf-16-le") == "Backthen"


def test_names_are_found_without_a_difference_in_case() -> None:
    volume = _odd_world().volume

    for path in ("mixed\\GR\u00dc\u00dfE.TXT", "MIXED\\gr\u00fc\u00dfe.txt", "Mixed\\Gr\u00fc\u00dfe.txt"):
        assert _read(volume, "\\LATEST\\" + path) == b"greetings"
    with refusal(errno.ENOENT):
        volume.open("\\latest\\mixed\\none", READ_ATTRIBUTES)


def test_names_that_differ_in_case_alone_are_two_files() -> None:
    world = _odd_world()

    assert {b"README", b"readme"} <= set(world.names(b"latest"))
    assert _read(world.volume, "\\latest\\README") == b"upper"
    assert _read(world.volume, "\\latest\\readme") == b"lower"
    assert _read(world.volume, "\\latest\\ReadMe") == b"upper"


def test_names_of_devices_are_files() -> None:
    volume = _odd_world().volume

    assert _read(volume, "\\latest\\\uf061ux.c") == b"device"


def test_links_to_directories_are_told_from_links_to_files() -> None:
    world = _odd_world()
    context, _ = world.volume.open("\\latest", READ_DATA, OPEN_DIRECTORY)
    entries = dict(world.volume.list(context, None, 65536)[0])
    world.volume.close(context)

    links = {name for name, record in entries.items() if record.attributes & ATTRIBUTE_REPARSE_POINT}
    directories = {name for name in links if entries[name].attributes & ATTRIBUTE_DIRECTORY}
    assert links == {"to-folder", "to-top", "beyond", "round", "to-file"}
    assert directories == {"to-folder", "to-top"}
    assert _read(world.volume, "\\latest\\to-folder\\Gr\u00fc\u00dfe.txt") == b"greetings"
    assert _read(world.volume, "\\latest\\to-top\\to-file") == b"upper"
    context, record = world.volume.open("\\latest", READ_ATTRIBUTES, OPEN_REPARSE_POINT)
    assert record.attributes == ATTRIBUTE_DIRECTORY | ATTRIBUTE_REPARSE_POINT
    world.volume.close(context)


def test_links_never_lead_out_of_the_volume() -> None:
    volume = _odd_world().volume

    with refusal(errno.ENOENT):
        volume.open("\\latest\\beyond", READ_ATTRIBUTES)
    with refusal(errno.ELOOP):
        volume.open("\\latest\\round", READ_ATTRIBUTES)


def test_path_through_a_link_is_told_to_be_one_and_through_a_file_to_be_none(world: WinFspWorld) -> None:
    assert world.volume.security("\\latest\\kinds")[0] == REPARSE
    latest = world.target(b"latest").decode().replace("/", "\\")
    assert world.volume.security(f"\\{latest}\\kinds\\file\\below")[0] == OBJECT_PATH_NOT_FOUND


def test_special_files_cannot_be_opened_but_are_there(world: WinFspWorld) -> None:
    with refusal(errno.ENXIO):
        world.read(b"latest/kinds/fifo", 0, 1)


@pytest.mark.parametrize("length", [65536, 4096, 700])
def test_listing_goes_on_after_any_name_that_fitted(world: WinFspWorld, length: int) -> None:
    context, _ = world.volume.open("\\latest\\many", READ_DATA, OPEN_DIRECTORY)
    names: list[str] = []
    is_end = False
    while not is_end:
        entries, is_end = world.volume.list(context, names[-1] if names else None, length)
        names += [name for name, _ in entries]

    assert names == [".", "..", *(f"{number:05d}" for number in range(MANY))]
    # Elsewhere than where the last answer ended, and from the start.
    again, _ = world.volume.list(context, "01233", length)
    assert again[0][0] == "01234"
    assert world.volume.list(context, None, length)[0][0][0] == "."
    world.volume.close(context)


def test_the_top_lists_no_dots_and_other_directories_their_own_numbers(world: WinFspWorld) -> None:
    context, top = world.volume.open("\\", READ_DATA, OPEN_DIRECTORY)
    assert [name for name, _ in world.volume.list(context, None, 65536)[0]] == [
        "at", "dates", "hosts", "latest", "snapshots", "tags", "versions", ".backthen",
    ]  # fmt: skip
    world.volume.close(context)

    context, record = world.volume.open("\\hosts", READ_DATA, OPEN_DIRECTORY)
    (_, own), (_, above), *_ = world.volume.list(context, None, 65536)[0]
    world.volume.close(context)
    assert (own.number, above.number) == (record.number, top.number)


def test_directory_that_is_being_listed_stays_as_it_was(world: WinFspWorld) -> None:
    view, history = _view(Folder({}))
    world = WinFspWorld(view)
    context, _ = world.volume.open("\\snapshots", READ_DATA, OPEN_DIRECTORY)
    first, _ = world.volume.list(context, "..", 65536)
    history.add(Folder({}), started_ns=10**18)

    assert world.volume.list(context, "..", 65536)[0] == first
    world.volume.close(context)


def test_one_name_can_be_asked_for(world: WinFspWorld) -> None:
    context, _ = world.volume.open("\\latest\\kinds", READ_DATA, OPEN_DIRECTORY)
    memory = ffi.new("char[]", ffi.sizeof("FSP_FSCTL_DIR_INFO") + 2 * 255)
    info = ffi.cast("FSP_FSCTL_DIR_INFO *", memory)
    interface, file_system = world.volume.interface, world.volume.file_system

    assert interface.GetDirInfoByName(file_system, context, "FILE", info) == 0
    assert info.FileInfo.FileSize == 6
    assert info.FileInfo.IndexNumber == world.lstat(b"latest/kinds/file").ino
    assert interface.GetDirInfoByName(file_system, context, "none", info) == 0xC0000034
    world.volume.close(context)


def test_what_was_opened_to_look_at_can_be_looked_at_even_if_its_content_is_lost(world: WinFspWorld) -> None:
    for name in ("unread", "unlisted"):
        context, _ = world.volume.open(f"\\latest\\kinds\\{name}", READ_ATTRIBUTES)
        world.volume.close(context)
        with refusal(errno.EIO):
            world.volume.open(f"\\latest\\kinds\\{name}", READ_DATA)


def test_what_was_opened_is_let_go(world: WinFspWorld) -> None:
    operations = ffi.from_handle(world.volume.file_system.UserContext)
    world.read(b"latest/kinds/file", 0, 10)
    world.names(b"latest/kinds")

    assert operations._opened_objs == {}


def test_numbers_are_those_of_the_view(world: WinFspWorld) -> None:
    view = world.view
    number = view.lookup(view.source, 1, b"hosts").number

    assert world.lstat(b"hosts").ino == number
    assert world.lstat(b"").ino == 1


def test_only_who_mounts_may_read_unless_others_are_let_in(world: WinFspWorld) -> None:
    alone = Volume(Operations(world.view, reader=READER, allow_other=False))

    for volume, has_others in ((world.volume, True), (alone, False)):
        latest = world.target(b"latest").decode().replace("/", "\\")
        _, _, descriptor = volume.security(f"\\{latest}\\kinds\\attributed")
        assert f";;;{READER})" in descriptor
        assert (";;;WD)" in descriptor) is has_others
        assert ";;;WD)" not in volume.security(f"\\{latest}\\kinds\\denied")[2]


def _distant() -> tuple[MemoryHistory, View]:
    history, _ = sample_history()
    return history, history_view(history, Owner(0, 0), monotonic_ns)


def test_what_is_not_in_memory_is_waited_for() -> None:
    history, view = _distant()
    history.blobs.distant = None
    world = WinFspWorld(view)

    assert world.read(b"latest/kinds/file", 0, 10) == b"hello\n"
    assert len(world.names(b"latest/many")) == MANY
    assert _read(world.volume, "\\latest\\KINDS\\FILE") == b"hello\n"


def test_request_that_takes_too_long_fails_and_others_go_on() -> None:
    history, view = _distant()
    world = WinFspWorld(view)
    node = view.open_file(view.source, world.lstat(b"latest/kinds/big").ino).node
    assert node is not None and node.entry.page is not None
    page = node.entry.page
    gate = history.blobs.gates[page.id] = threading.Event()
    world.volume = Volume(Operations(view, reader=READER, allow_other=True, request_deadline_s=0.05))

    with refusal(errno.EIO):
        world.read(b"latest/kinds/big", 0, 10)
    assert world.read(b"latest/kinds/file", 0, 10) == b"hello\n"
    gate.set()


def test_bug_in_the_view_is_logged_and_answered(caplog: pytest.LogCaptureFixture) -> None:
    view = Mock(spec=View, near=None, source=None)
    view.attributes.side_effect = ZeroDivisionError("oh")
    volume = Volume(Operations(view, reader=READER, allow_other=False))

    with caplog.at_level(logging.ERROR):
        assert volume.security("\\")[0] == 0xC00000E9

    assert "ZeroDivisionError" in caplog.text


@pytest.fixture
def whoami(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that answers as the one of Windows does."""
    program = tmp_path / "bin" / "whoami"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\n[ "$*" = \'/user /fo csv /nh\' ] && echo \'"machine\\me","{READER}"\'\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return program


def test_windows_is_asked_who_mounts(whoami: Path) -> None:
    assert current_user_sid() == READER
    whoami.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(MountRefused, match="who mounts"):
        current_user_sid()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_mount_is_read_only_and_ends_with_a_signal(whoami: Path, tmp_path: Path, number: signal.Signals) -> None:
    events: list[str] = []
    del native.calls[:]

    def ready() -> None:
        events.append("ready")
        os.kill(os.getpid(), number)

    serve_view(
        _distant()[1],
        tmp_path,
        allow_other=False,
        request_deadline_s=30,
        mounted=lambda: events.append("mounted"),
        ready=ready,
    )

    assert events == ["mounted", "ready"]
    assert native.calls == ["create", f"mount at {tmp_path}", "start", "stop", "delete"]
    assert native.parameters["read_only_volume"] == 1
    assert native.parameters["reparse_points"] == 1
    assert native.parameters["case_sensitive_search"] == 1
    assert native.parameters["file_info_timeout"] == 500


def test_mount_that_is_refused_is_taken_away(whoami: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    del native.calls[:]

    def refuse(file_system: Pointer, mountpoint: str) -> int:
        return 0xC0000035  # STATUS_OBJECT_NAME_COLLISION

    monkeypatch.setattr(native, "FspFileSystemSetMountPoint", refuse)
    with pytest.raises(MountRefused, match="STATUS_OBJECT_NAME_COLLISION"):
        serve_view(
            _distant()[1], tmp_path, allow_other=False, request_deadline_s=30, mounted=lambda: None, ready=lambda: None
        )

    assert native.calls == ["create", "stop", "delete"]
