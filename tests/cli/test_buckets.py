"""A repository in a bucket, from `init` to `check`, and that nobody sees what opens the bucket."""

from __future__ import annotations

import shutil
import signal
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from backthen.repository.storage import open_storage
from tests.cli.conftest import TIMEOUT_S, User, program, settle
from tests.support.http_server import Answer, Request, http_server, ignoring_conditions, s3_error
from tests.support.s3_server import S3Server

SECRET = "planted-Secret/Key+0123456789"


@pytest.fixture
def tenant(newcomer: User, s3_server: S3Server) -> User:
    """Somebody whose repository is to be in a bucket."""
    settle(newcomer)
    newcomer.variables |= {
        **replace(s3_server, secret=SECRET).variables,
        "BACKTHEN_REPOSITORY": s3_server.new_location(),
    }
    return newcomer


def test_a_life_in_a_bucket(tenant: User, tree: Path, mountpoint: Path, tmp_path: Path) -> None:
    location = tenant.variables["BACKTHEN_REPOSITORY"]
    shown = [tenant.run("init", location, "-vv", "--debug")]
    assert location in shown[0].text
    shown.append(tenant.run("init", location, code=1))
    shown.append(tenant.run("snapshot", "create", str(tree), "-vv", "--debug"))
    shown.append(tenant.run("mount", str(mountpoint)))  # in a process that was forked
    shutil.copytree(mountpoint / "latest" / str(tree)[1:], tmp_path / "copied", symlinks=True)
    shown.append(tenant.run("umount", str(mountpoint)))
    shown.append(tenant.run("restore", f"latest:{tree}", "--target", str(tmp_path / "restored")))
    shown.append(tenant.run("check", "--read-data", "--debug"))
    for folder in ("copied", "restored"):
        assert (tree / "below" / "numbers").read_bytes() == next((tmp_path / folder).rglob("numbers")).read_bytes()
    for done in shown:
        assert SECRET not in done.err + done.text
    for path in tenant.home.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


def test_a_machine_notices_when_a_bucket_has_lost_snapshots(tenant: User, tree: Path, s3_server: S3Server) -> None:
    tenant.run("init")
    tenant.snapshot(str(tree))
    storage = open_storage(tenant.variables["BACKTHEN_REPOSITORY"], s3_server.access)
    held = {stored.name for folder in ("roots", "log") for stored in storage.list(folder)}
    tenant.snapshot(str(tree))
    for name in {stored.name for folder in ("roots", "log") for stored in storage.list(folder)} - held:
        storage.delete(name)
    storage.close()
    for command in (("snapshot", "list"), ("snapshot", "create", str(tree))):
        assert "it has lost log/" in tenant.run(*command, code=13).err


def test_a_mount_of_what_is_not_there_says_so(tenant: User, mountpoint: Path) -> None:
    assert "there is no repository at s3://" in tenant.run("mount", str(mountpoint), code=10).err
    tenant.variables["BACKTHEN_REPOSITORY"] = "s3://nobody-made-this/prefix"
    assert "there is no such bucket" in tenant.run("mount", str(mountpoint), code=14).err


def test_init_in_a_bucket_that_nobody_made(tenant: User) -> None:
    done = tenant.run("init", "s3://nobody-made-this/prefix", code=14)
    assert "there is no such bucket" in done.err
    assert "Make it first" in done.err


def test_init_beside_something_else(tenant: User, tree: Path) -> None:
    tenant.run("init")
    done = tenant.run("init", tenant.variables["BACKTHEN_REPOSITORY"].rpartition("/")[0], code=1)
    assert "is not empty" in done.err


def test_credentials_come_out_of_a_profile(tenant: User, tree: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        del tenant.variables[name]
    assert "there are no credentials" in tenant.run("init", code=2).err
    (tenant.home / ".aws").mkdir()
    keys = f"aws_access_key_id = AKID\naws_secret_access_key = {SECRET}\n"
    (tenant.home / ".aws" / "credentials").write_text(f"[backup]\n{keys}")
    tenant.variables["AWS_PROFILE"] = "backup"
    tenant.run("init")
    tenant.snapshot(str(tree))


def test_a_server_that_ignores_conditions_is_told(tenant: User, s3_server: S3Server, tree: Path) -> None:
    with http_server(ignoring_conditions(s3_server.endpoint)) as endpoint:
        tenant.variables["AWS_ENDPOINT_URL"] = endpoint
        assert "does not refuse to put what is there already" in tenant.run("init").err
        tenant.snapshot(str(tree))
        assert "does not refuse" not in tenant.run("check").err


def test_who_waits_for_a_silent_server_may_interrupt(tenant: User) -> None:
    is_asked, is_over = threading.Event(), threading.Event()

    def respond(_: Request) -> Answer:
        is_asked.set()
        is_over.wait()
        return Answer(500)

    with http_server(respond) as endpoint:
        environment = {**tenant.environment, "AWS_ENDPOINT_URL": endpoint}
        process = subprocess.Popen(
            [*program(), "snapshot", "list"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert is_asked.wait(TIMEOUT_S)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=TIMEOUT_S)
        is_over.set()
    assert (130, b"backthen: interrupted\n") == (process.returncode, err)


def test_no_secret_is_in_what_is_said_of_a_refusal(tenant: User) -> None:
    def respond(request: Request) -> Answer:
        return s3_error(403, "SignatureDoesNotMatch", f"{SECRET} {request.headers}")

    with http_server(respond) as endpoint:
        tenant.variables["AWS_ENDPOINT_URL"] = endpoint
        done = tenant.run("snapshot", "list", "--debug", code=14)
    assert "does not accept the credentials" in done.err
    assert SECRET not in done.err
    assert "Traceback" in done.err


def test_a_login_mount_does_without_the_secret_of_the_environment(tenant: User, mountpoint: Path) -> None:
    tenant.run("init")
    done = tenant.run("mount", "--install", str(mountpoint), code=1)
    assert "AWS_SECRET_ACCESS_KEY is not there at login" in done.err
