"""Storage that stops to answer, fails or goes away under a mount, and comes back; as root and as an ordinary user."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.onlooker import PATIENCE_S, Onlooker, Stalled, is_running, onlooker, wait_until
from tests.support.slow_line import SlowLine
from tests.support.ssh_server import throwaway_sshd

EIO = f"[Errno {errno.EIO}]".encode()


@pytest.fixture(params=["root", "user"])
def who(request: pytest.FixtureRequest) -> Iterator[Onlooker]:
    with onlooker(request.param) as made:
        yield made


@pytest.fixture
def stalled(who: Onlooker) -> Iterator[Stalled]:
    with Stalled(who) as made:
        yield made


def _saved(who: Onlooker, name: str) -> Path:
    return who.past / f"latest{who.tree}" / name


def test_reads_fail_inside_the_deadline_and_work_again_when_it_answers(who: Onlooker, stalled: Stalled) -> None:
    _, log = who.mount("-r", str(stalled.folder), "--timeout", "2")
    assert who.read(_saved(who, "letter")) == b"Dear all,\n"

    stalled.be("stall")
    assert EIO in who.read(_saved(who, "numbers"))
    assert who.read(_saved(who, "letter")) == b"Dear all,\n", "what is in memory needs no storage"
    wait_until(lambda: who.status()["storage"].startswith("has not answered for"))
    assert EIO in who.read(_saved(who, "numbers"))
    assert "the storage has not answered for" in log.read_text()
    assert who.names(who.past / "snapshots")

    stalled.be("answer")
    wait_until(lambda: who.status()["storage"] == "answers")
    assert who.read(_saved(who, "numbers")) == (who.tree / "numbers").read_bytes()
    assert "the storage answers again" in log.read_text()
    who.user.run("umount", str(who.past))


def test_more_readers_than_there_are_workers_all_get_an_answer(who: Onlooker, stalled: Stalled) -> None:
    who.mount("-r", str(stalled.folder), "--timeout", "2")
    stalled.be("stall")
    readers = [who.begin("cat", _saved(who, "numbers")) for _ in range(24)]
    for reader in readers:
        out, _ = reader.communicate(timeout=PATIENCE_S)
        assert (reader.returncode, out) == (1, b"")

    stalled.be("answer")
    wait_until(lambda: who.status()["waiting"] == "0")
    assert who.read(_saved(who, "numbers")) == (who.tree / "numbers").read_bytes()
    who.user.run("umount", str(who.past))


def test_a_waiting_reader_can_be_killed(who: Onlooker, stalled: Stalled) -> None:
    who.mount("-r", str(stalled.folder), "--timeout", "3")
    stalled.be("stall")
    reader = who.begin("cat", _saved(who, "numbers"))
    wait_until(lambda: who.status()["waiting"] != "0")
    reader.kill()
    reader.communicate(timeout=PATIENCE_S)
    stalled.be("answer")
    who.user.run("umount", str(who.past))


def test_the_mount_can_be_taken_away_while_it_waits(who: Onlooker, stalled: Stalled) -> None:
    pid, _ = who.mount("-r", str(stalled.folder), "--timeout", "2")
    stalled.be("stall")
    assert EIO in who.read(_saved(who, "numbers"))
    who.user.run("umount", str(who.past))

    assert not who.is_mounted()
    assert who.names(who.past) == []
    stalled.be("answer")
    wait_until(lambda: not is_running(pid))


def test_told_to_stop_while_it_waits_it_unmounts(who: Onlooker, stalled: Stalled) -> None:
    pid, _ = who.mount("-r", str(stalled.folder), "--timeout", "600")
    stalled.be("stall")
    reader = who.begin("cat", _saved(who, "numbers"))
    wait_until(lambda: who.status()["waiting"] != "0")
    os.kill(pid, signal.SIGTERM)
    reader.communicate(timeout=PATIENCE_S)

    assert reader.returncode == 1
    wait_until(lambda: not who.is_mounted())
    stalled.be("answer")
    wait_until(lambda: not is_running(pid))


def test_killed_while_it_waits_it_holds_up_nobody_for_ever(who: Onlooker, stalled: Stalled) -> None:
    """The system cannot end it before its storage answers; until then it is a mount that does not answer."""
    pid, _ = who.mount("-r", str(stalled.folder), "--timeout", "600")
    stalled.be("stall")
    waiting = who.begin("cat", _saved(who, "numbers"))
    wait_until(lambda: who.status()["waiting"] != "0")
    os.kill(pid, signal.SIGKILL)
    late = who.begin("ls", who.past)
    assert "does not answer" in who.user.run("mount", str(who.past), code=15).err
    late.kill()
    late.communicate(timeout=PATIENCE_S)

    who.user.run("umount", "--lazy", str(who.past))
    assert not who.is_mounted()
    assert who.names(who.past) == []
    waiting.communicate(timeout=PATIENCE_S)
    assert waiting.returncode == 1
    stalled.be("answer")
    wait_until(lambda: not is_running(pid))


@pytest.mark.parametrize("how", ["fails", "moved away"])
def test_storage_that_is_away_gives_eio_until_it_is_back(who: Onlooker, stalled: Stalled, how: str) -> None:
    repository = who.user.home / "repository"
    _, log = who.mount("-r", str(stalled.folder if how == "fails" else repository))
    assert who.read(_saved(who, "letter")) == b"Dear all,\n"

    if how == "fails":
        stalled.be("fail")
    else:
        repository.rename(repository.with_name("elsewhere"))
    assert EIO in who.read(_saved(who, "numbers"))
    assert who.read(_saved(who, "letter")) == b"Dear all,\n"
    assert len(who.names(who.past / "snapshots")) == 1
    assert who.status()["storage"].startswith("has failed for")
    assert "storage says" in who.status()
    assert "the storage fails" in log.read_text()

    if how == "fails":
        stalled.be("answer")
    else:
        repository.with_name("elsewhere").rename(repository)
    assert who.read(_saved(who, "numbers")) == (who.tree / "numbers").read_bytes()
    assert who.status()["storage"] == "answers"
    who.user.snapshot(str(who.tree))
    wait_until(lambda: len(who.names(who.past / "snapshots")) == 2)
    assert log.read_text().count("the storage answers again") == 1
    who.user.run("umount", str(who.past))


@pytest.mark.parametrize("how", ["stopped", "silent"])
def test_a_server_that_is_away_gives_eio_inside_the_deadline_until_it_is_back(tmp_path: Path, how: str) -> None:
    sshd = tmp_path / "sshd"
    sshd.mkdir()
    with (
        onlooker("root" if os.geteuid() == 0 else "user") as who,
        throwaway_sshd(sshd) as server,
        SlowLine(("127.0.0.1", server.port), round_trip_s=0.001) as line,
    ):
        server.also_at(line.port)
        (who.user.home / ".ssh").mkdir(mode=0o700)
        (who.user.home / ".ssh" / "config").write_text(server.config.read_text())
        location = f"sftp://{server.user}@127.0.0.1:{line.port}{who.user.home}/repository"
        _, log = who.mount("-r", location, "--timeout", "4")
        assert who.read(_saved(who, "letter")) == b"Dear all,\n"

        server.stop() if how == "stopped" else line.stall()
        assert EIO in who.read(_saved(who, "numbers"))
        assert who.read(_saved(who, "letter")) == b"Dear all,\n"
        assert len(who.names(who.past / "snapshots")) == 1
        said = "has failed for" if how == "stopped" else "has not answered for"
        wait_until(lambda: who.status()["storage"].startswith(said))
        logged = "the storage fails" if how == "stopped" else "a request was not answered by the storage in time"
        assert logged in log.read_text()

        server.restart() if how == "stopped" else line.go()
        wait_until(lambda: who.read(_saved(who, "numbers")) == (who.tree / "numbers").read_bytes())
        wait_until(lambda: who.status()["storage"] == "answers")
        if how == "stopped":
            assert "the storage answers again" in log.read_text()
        who.user.run("umount", str(who.past))


def test_the_cache_can_vanish_under_a_mount(who: Onlooker) -> None:
    who.mount()
    shutil.rmtree(who.user.home / "cache")
    assert who.read(_saved(who, "numbers")) == (who.tree / "numbers").read_bytes()

    subprocess.run([*who.role.prefix, "sh", "-c", f"echo again >{who.tree}/new"], check=True)
    who.user.run("snapshot", "create", "-q", str(who.tree), "--cache-dir", str(who.user.home / "other"))
    wait_until(lambda: len(who.names(who.past / "snapshots")) == 2)
    assert who.read(_saved(who, "new")) == b"again\n"
    assert who.read(_saved(who, "letter")) == b"Dear all,\n"
    who.user.run("umount", str(who.past))


def test_it_mounts_where_no_log_can_be_written_and_says_so(who: Onlooker) -> None:
    folder = who.user.home / "state" / "backthen" / "log"
    shutil.rmtree(folder, ignore_errors=True)
    folder.write_bytes(b"")
    done = who.user.run("mount", str(who.past))

    assert f"the log {folder}/mount-" in done.err
    assert "no log" in done.text
    assert who.read(_saved(who, "letter")) == b"Dear all,\n"
    who.user.run("umount", str(who.past))
    quiet = who.user.run("mount", "-q", "--json", str(who.past))
    assert (None, "") == (quiet.document["log"], quiet.err)
    who.user.run("umount", str(who.past))


def test_it_mounts_where_the_state_is_read_only_and_says_so() -> None:
    with onlooker("user") as who:
        state = who.user.home / "state" / "backthen"
        before = {path: path.read_bytes() for path in state.rglob("*") if path.is_file()}
        who.user.run(
            "snapshot", "create", "-q", str(who.tree), variables={"XDG_STATE_HOME": str(who.user.home / "new")}
        )
        folders = [state, *(path for path in state.rglob("*") if path.is_dir())]
        for folder in folders:
            folder.chmod(0o500)
        done = who.user.run("mount", str(who.past))

        assert f"the log {state}/log/mount-" in done.err
        assert "will not remember what it saw" in done.err
        assert len(who.names(who.past / "snapshots")) == 2
        assert who.read(_saved(who, "letter")) == b"Dear all,\n"
        assert before == {path: path.read_bytes() for path in state.rglob("*") if path.is_file()}
        who.user.run("umount", str(who.past))
