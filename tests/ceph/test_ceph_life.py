"""The life of a repository in Ceph: two writers at once, a mount, and credentials that can only add."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tests.ceph.conftest import client
from tests.cli.conftest import User, settle
from tests.support.ceph import Ceph
from tests.support.comparison import differences
from tests.support.s3_server import S3Server

ROOT = Path(__file__).parents[2]
FILES = 400


@pytest.fixture
def tenant(tmp_path: Path, s3_server: S3Server) -> Iterator[User]:
    """Somebody with a repository in a bucket."""
    home = tmp_path / "home"
    (home / "Past").mkdir(parents=True)
    user = User(home)
    settle(user)
    user.variables |= {**s3_server.variables, "BACKTHEN_REPOSITORY": s3_server.new_location()}
    yield user
    subprocess.run(["fusermount3", "-u", "-z", "-q", str(home / "Past")], check=False, stderr=subprocess.DEVNULL)


def _tree(folder: Path, seed: bytes) -> Path:
    """Small files, and one of several packs."""
    for number in range(FILES):
        path = folder / f"{number % 7}" / f"file {number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(seed * (number % 50) + b"%d" % number)
    (folder / "large").write_bytes(os.urandom(80_000_000))
    (folder / "link").symlink_to("large")
    return folder


def _same(one: Path, other: Path) -> list[str]:
    return list(differences(os.fsencode(one), os.fsencode(other)))


def test_two_writers_at_once_and_all_is_read_back(tenant: User, tmp_path: Path) -> None:
    trees = {host: _tree(tmp_path / host, host.encode()) for host in ("one", "two")}
    tenant.run("init")

    def save(host: str) -> str:
        return tenant.snapshot("--host", host, str(trees[host]))

    with ThreadPoolExecutor(2) as pool:
        ids = dict(zip(trees, pool.map(save, trees), strict=True))
    for host in trees:  # once more, with something to take over from
        (trees[host] / "0" / "new").write_bytes(host.encode())
    with ThreadPoolExecutor(2) as pool:
        later = dict(zip(trees, pool.map(save, trees), strict=True))
    listed = tenant.run("snapshot", "list", "--json").document["snapshots"]
    assert isinstance(listed, list)
    assert {*ids.values(), *later.values()} == {snapshot["id"] for snapshot in listed}

    past = tenant.home / "Past"
    tenant.run("mount", str(past))
    for host, tree in trees.items():
        shown = next((past / "snapshots").glob(f"*_{later[host][:8]}"))
        copied = tmp_path / f"copied-{host}"
        subprocess.run(["cp", "-a", str(shown) + str(tree), str(copied)], check=True)
        assert [] == _same(tree, copied)
    tenant.run("umount", str(past))
    for host, tree in trees.items():
        target = tmp_path / f"restored-{host}"
        tenant.run("restore", f"{later[host]}:{tree}", "--target", str(target))
        assert [] == _same(tree, target)
        shutil.rmtree(target)
    assert "No fault was found" in tenant.run("check", "--read-data").text

    (trees["one"] / "large").unlink()
    with ThreadPoolExecutor(2) as pool:  # one saves while the other makes room
        newest = pool.submit(save, "one")
        tenant.run("snapshot", "forget", *ids.values(), later["one"])
        pruned = pool.submit(tenant.run, "prune", "--json", "--cache-dir", str(tenant.home / "another cache"))
        assert len(ids) + 1 == len(pruned.result().events[-1]["snapshots"])  # type: ignore[arg-type]
        newest.result()
    assert tenant.run("prune", "--json").events[-1]["bytes_left"]
    assert 2 == len(tenant.run("snapshot", "list", "--json").document["snapshots"])  # type: ignore[arg-type]
    assert "No fault was found" in tenant.run("check", "--read-data").text


def _policy(name: str, user: str, bucket: str) -> str:
    """A policy as docs/storage.md gives it, for this user and bucket."""
    blocks = re.findall(r"```json\n(.*?)```", (ROOT / "docs" / "storage.md").read_text(), re.DOTALL)
    text: str = next(block for block in blocks if f'"Id": "{name}"' in block)
    return text.replace("user/backthen", f"user/{user}").replace("my-bucket", bucket)


def test_who_can_only_add_saves_and_can_neither_delete_nor_lose_anything(
    tenant: User, ceph: Ceph, s3_server: S3Server, tmp_path: Path
) -> None:
    bucket = "append-only"
    owner = client(s3_server)
    owner.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    retention = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}}
    owner.put_object_lock_configuration(
        Bucket=bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": retention}
    )
    owner.put_bucket_policy(Bucket=bucket, Policy=_policy("backthen-add-only", "writer", bucket))
    key_id, secret = ceph.new_user("writer")
    adder = replace(s3_server, key_id=key_id, secret=secret)
    tenant.variables |= {**adder.variables, "BACKTHEN_REPOSITORY": f"s3://{bucket}/host"}
    tree = _tree(tmp_path / "tree", b"tree")
    tenant.run("init")
    tenant.snapshot(str(tree))
    (tree / "0" / "new").write_bytes(b"new")
    tenant.snapshot(str(tree))
    assert "No fault was found" in tenant.run("check", "--read-data").text

    thief = client(adder)
    versions = owner.list_object_versions(Bucket=bucket)["Versions"]
    stored = {version["Key"]: version["VersionId"] for version in versions if "/tmp/" not in version["Key"]}
    assert stored
    for key, version in stored.items():
        for wanted in ({}, {"VersionId": version}):
            with pytest.raises(ClientError, match="AccessDenied"):
                thief.delete_object(Bucket=bucket, Key=key, **wanted)
        with pytest.raises(ClientError, match="AccessDenied"):
            owner.delete_object(Bucket=bucket, Key=key, VersionId=version)
    key, version = next((key, version) for key, version in stored.items() if "/packs/" in key)
    before = thief.get_object(Bucket=bucket, Key=key)["Body"].read()
    thief.put_object(Bucket=bucket, Key=key, Body=b"overwritten")  # Ceph knows no condition that would forbid it
    assert before == thief.get_object(Bucket=bucket, Key=key, VersionId=version)["Body"].read()
    tenant.run("check", "--read-data", code=13)
    thief.copy_object(Bucket=bucket, Key=key, CopySource={"Bucket": bucket, "Key": key, "VersionId": version})
    tenant.run("check", "--read-data")

    tenant.run("snapshot", "forget", "--keep-last", "1")
    assert "denie" in tenant.run("prune", code=14).err
    key_id, secret = ceph.new_user("writer-prune")
    pruner = replace(s3_server, key_id=key_id, secret=secret)
    admin = User(tmp_path / "admin", {**tenant.variables, **pruner.variables})
    admin.home.mkdir()
    assert 1 == len(admin.run("prune", "--json").events[-1]["snapshots"])  # type: ignore[arg-type]
    assert "No fault was found" in tenant.run("check", "--read-data").text
