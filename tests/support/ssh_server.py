"""A throwaway sshd with keys of its own, and what a client needs to reach it."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from backthen.repository.storage import StorageAccess

SSHD = "/usr/sbin/sshd"
TIMEOUT_S = 20.0


@dataclass
class SshServer:
    """A running sshd.

    Attributes:
        folder: holds its files and the client's.
        port: where it listens on 127.0.0.1.
        user: who may log in, and as whom it runs.
        command: what starts it.
    """

    folder: Path
    port: int
    user: str
    command: list[str]
    process: subprocess.Popen[bytes]

    @property
    def host_key(self) -> Path:
        """The private key of the host."""
        return self.folder / "host_key"

    @property
    def client_key(self) -> Path:
        """The private key of the user."""
        return self.folder / "client_key"

    @property
    def known_hosts(self) -> Path:
        """Knows this server."""
        return self.folder / "known_hosts"

    @property
    def config(self) -> Path:
        """An ssh configuration with which `127.0.0.1` and the host `backups` reach this server."""
        return self.folder / "ssh_config"

    @property
    def access(self) -> StorageAccess:
        """What reaches this server."""
        return StorageAccess(ssh_config=(self.config,), timeout_s=TIMEOUT_S, retry_for_s=TIMEOUT_S)

    def location(self, path: Path | str) -> str:
        """The address of a folder."""
        return f"sftp://{self.user}@127.0.0.1:{self.port}{path}"

    def sessions(self) -> list[int]:
        """The processes that serve connections now."""
        return _descendants(self.process.pid)

    def cut(self) -> None:
        """Kill all that serves connections, as a crash does; new ones are served."""
        for pid in self.sessions():
            _kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        """Kill the server and all that serves connections."""
        sessions = self.sessions()
        self.process.kill()
        self.process.wait()
        for pid in sessions:
            _kill(pid, signal.SIGKILL)

    def restart(self) -> None:
        """Serve again, at the same port."""
        self.process = _start(self.command, self.port)

    def also_at(self, port: int) -> None:
        """Let the client know that what listens at another port is this server."""
        with self.known_hosts.open("a") as known:
            known.write(f"[127.0.0.1]:{port} {self.host_key.with_suffix('.pub').read_text()}")


@contextmanager
def throwaway_sshd(
    folder: Path, *options: str, sftp: str = "internal-sftp", user: str = "", prefix: Sequence[str] = ()
) -> Iterator[SshServer]:
    """Serve while the context lasts.

    Args:
        folder: an empty one, for its files.
        options: lines of its configuration that win over its own.
        sftp: the command that serves SFTP.
        user: as whom it runs, and who may log in; the one who runs the tests if empty. Only root can choose.
        prefix: what its command is given to.
    """
    for name in ("host_key", "client_key"):
        make_key(folder / name)
    shutil.copy(folder / "client_key.pub", folder / "authorized_keys")
    account = pwd.getpwnam(user) if user else pwd.getpwuid(os.geteuid())
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
        subprocess.run(["chown", "-R", f"{account.pw_uid}:{account.pw_gid}", folder], check=True)
    port = free_port()
    (folder / "sshd_config").write_text(
        "\n".join([*options, f"Subsystem sftp {sftp}", *_sshd_options(folder, port, account.pw_uid)]) + "\n"
    )
    become = ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"] if user else []
    command = [*prefix, *become, SSHD, "-D", "-f", str(folder / "sshd_config"), "-E", str(folder / "log")]
    server = SshServer(folder, port, account.pw_name, command, _start(command, port))
    server.also_at(port)
    server.config.write_text(
        f"Host backups\n  Hostname 127.0.0.1\n  Port {port}\n  User {server.user}\n"
        f"Host *\n  IdentityFile {server.client_key}\n  UserKnownHostsFile {server.known_hosts}\n  IdentitiesOnly yes\n"
    )
    try:
        yield server
    finally:
        server.stop()


def make_key(path: Path, passphrase: str = "") -> None:
    """A new pair of keys."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", path], check=True)


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _sshd_options(folder: Path, port: int, uid: int) -> list[str]:
    return [
        f"ListenAddress 127.0.0.1:{port}",
        f"HostKey {folder / 'host_key'}",
        f"AuthorizedKeysFile {folder / 'authorized_keys'}",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "PermitRootLogin prohibit-password",
        "StrictModes no",
        f"UsePAM {'yes' if uid else 'no'}",  # without it only root can see that an account is not locked
        "PidFile none",
        "LogLevel VERBOSE",
        "MaxStartups 100",
    ]


def _start(command: list[str], port: int) -> subprocess.Popen[bytes]:
    """An sshd that accepts connections."""
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.recv(1)
            return process
        except ConnectionRefusedError:
            if process.poll() is not None:
                raise RuntimeError(f"sshd ended; what it says is in {command[-1]}") from None


def _descendants(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return []
    return [found for child in children for found in (int(child), *_descendants(int(child)))]


def _kill(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
