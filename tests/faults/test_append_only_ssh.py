"""An SSH server that lets its user add and nothing else, as docs/storage.md sets it up."""

from __future__ import annotations

import os
import pwd
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from backthen.repository import (
    CheckRequest,
    Client,
    Folders,
    Repository,
    RollbackError,
    Silent,
    SnapshotRequest,
    check_repository,
    create_repository,
    create_snapshot,
    find_repository,
    forget_snapshots,
    open_storage,
    prune_repository,
    unlock,
)
from backthen.repository.errors import StorageError
from backthen.repository.storage import FOLDERS, Storage
from tests.support.ssh_server import SshServer, throwaway_sshd

PASSWORD = b"password"
CLIENT = Client("host", "user", "test")
ADD_ONLY = "internal-sftp -u 0277 -P remove,rename,posix-rename,setstat,fsetstat,lsetstat,rmdir,mkdir,symlink"
LONG_AGO_S = 1_000_000_000


@dataclass(frozen=True)
class Scene:
    """A server that lets add, the folder of the repository on it, and a tree to save."""

    server: SshServer
    folder: Path
    tree: Path
    folders: Folders

    def storage(self) -> Storage:
        return open_storage(self.server.location(self.folder), self.server.access)

    def repository(self) -> Repository:
        return unlock(find_repository(self.storage(), self.folders), PASSWORD, CLIENT)

    def snapshot(self) -> None:
        with self.repository() as repository:
            create_snapshot(repository, SnapshotRequest((os.fsencode(self.tree),), "host"), Silent())

    def objects(self) -> dict[Path, bytes]:
        below = (
            path for name in ("config", *FOLDERS) for path in (self.folder / name, *(self.folder / name).rglob("*"))
        )
        return {path: path.read_bytes() for path in below if path.is_file()}

    def asked(self, command: str) -> bool:
        """Whether the server did what OpenSSH's own client asked for."""
        address = f"sftp://{self.server.user}@127.0.0.1:{self.server.port}"
        batch = ["sftp", "-F", str(self.server.config), "-b", "-", address]
        return subprocess.run(batch, input=command.encode(), capture_output=True, check=False).returncode == 0


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """Root is held back by no permission, so that an account of others is used where the tests run as root."""
    user = "nobody" if os.geteuid() == 0 else ""
    account = pwd.getpwnam(user) if user else pwd.getpwuid(os.geteuid())
    with tempfile.TemporaryDirectory(prefix="backthen-add-only.") as place:
        Path(place).chmod(0o755)
        folders = Folders(cache=tmp_path / "cache", state=tmp_path / "state")
        folder = _new(Path(place) / "repository")
        create_repository(open_storage(str(folder)), PASSWORD, folders, CLIENT).close()
        for name in ("tmp", *FOLDERS, *(f"packs/{number:02x}" for number in range(256))):
            _new(folder / name)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o700 if path.is_dir() else 0o400)
            os.chown(path, account.pw_uid, account.pw_gid)
        tree = _new(tmp_path / "tree")
        (tree / "file").write_bytes(os.urandom(100_000))
        with throwaway_sshd(_new(Path(place) / "sshd"), sftp=ADD_ONLY, user=user) as server:
            yield Scene(server, folder, tree, folders)


def _new(folder: Path) -> Path:
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def test_snapshots_are_made_where_nothing_can_be_taken_away(scene: Scene) -> None:
    scene.snapshot()
    (scene.tree / "file").write_bytes(b"changed")
    before = scene.objects()
    scene.snapshot()
    assert before.items() < scene.objects().items()


def test_what_is_left_in_the_spool_does_not_matter(scene: Scene) -> None:
    scene.snapshot()
    left = list((scene.folder / "tmp").iterdir())
    for path in left:
        os.utime(path, (LONG_AGO_S, LONG_AGO_S))
    scene.snapshot()
    assert set(left) <= set((scene.folder / "tmp").iterdir())


def test_nothing_that_is_stored_can_be_changed_or_removed(scene: Scene) -> None:
    scene.snapshot()
    before = scene.objects()
    other, new = scene.tree / "other", scene.folder / "new"
    other.write_bytes(b"other")
    attacks = [f"put {other} {new}"]
    for path in before:
        attacks += [
            f"-put {other} {path}",
            f"-reput {other} {path}",
            f"-rm {path}",
            f"-chmod 700 {path}",
            f"-rename {path} {path}-away",
            f"-rename {new} {path}",
            f"-ln {new} {path}",
            f"-rename {path.parent} {path.parent}-away",
        ]
    assert scene.asked("\n".join(attacks))
    assert (b"other", before) == (new.read_bytes(), scene.objects())


def test_a_client_notices_when_the_storage_has_lost_snapshots(scene: Scene) -> None:
    scene.snapshot()
    held = {path for path in scene.objects() if path.parent.name in ("roots", "log")}
    scene.snapshot()
    for path in scene.objects().keys() - held:
        if path.parent.name in ("roots", "log"):
            path.unlink()
    with pytest.raises(RollbackError, match="it has lost log/"):
        scene.snapshot()


def test_room_is_made_from_elsewhere(scene: Scene, tmp_path: Path) -> None:
    scene.snapshot()
    (scene.tree / "file").write_bytes(b"changed")
    scene.snapshot()
    with scene.repository() as repository:
        first, second = repository.snapshots()
        forget_snapshots(repository, [first.id], Silent())
        before = scene.objects()
        with pytest.raises(StorageError, match="denies permission"):
            prune_repository(repository, Silent(), dry_run=False)
    assert before.items() <= scene.objects().items()

    elsewhere = Folders(cache=tmp_path / "other cache", state=tmp_path / "other state")
    with unlock(find_repository(open_storage(str(scene.folder)), elsewhere), PASSWORD, CLIENT) as repository:
        report = prune_repository(repository, Silent(), dry_run=False)
    assert [first.id] == list(report.forgotten)
    assert len(scene.objects()) < len(before)
    owner = scene.folder.stat()
    for path in scene.objects():
        os.chown(path, owner.st_uid, owner.st_gid)  # as if that user had pruned on the server
    scene.snapshot()
    with scene.repository() as repository:
        assert second.id in {info.id for info in repository.snapshots()}
        assert [] == check_repository(repository, CheckRequest(read_data_percent=100), Silent()).findings


def test_deleting_says_that_it_is_refused(scene: Scene) -> None:
    with pytest.raises(StorageError, match="denies permission"):
        scene.storage().delete("config")
