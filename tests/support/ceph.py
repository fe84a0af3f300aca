"""The smallest real Ceph with its S3 gateway, on loopback: one monitor, one daemon with its objects in memory, radosgw.

Nothing of it outlives the process that began it, whatever becomes of that: each part is started with the request to the
kernel to kill it when its parent thread ends. It needs root, Debian's packages (`ci/test-ceph` installs them), about
2 GB of memory and a quarter of a minute.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support.s3_server import S3Server

START_S = 180
COMMAND_S = 120
_POLL_S = 0.1
_PR_SET_PDEATHSIG = 1
_LOG_BYTES = 4000

_CONFIGURATION = """\
[global]
fsid = {cluster}
mon_host = v2:127.0.0.1:{monitor_port}
mon_initial_members = a
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
public_network = 127.0.0.0/8
ms_bind_msgr1 = false
run_dir = {folder}/run
log_file = {folder}/$name.log
admin_socket = {folder}/run/$name.asok
keyring = {folder}/keyring
mon_data = {folder}/mon
osd_data = {folder}/osd
rgw_data = {folder}
# One copy on one daemon, in memory, and no complaints about it or about a disk of this machine that is nearly full.
osd_objectstore = memstore
memstore_device_bytes = 4294967296
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_pool_default_pgp_num = 8
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
osd_class_load_list = *
osd_class_default_list = *
mon_allow_pool_size_one = true
mon_data_avail_crit = 1
mon_data_avail_warn = 1
rgw_thread_pool_size = 64
"""


class Ceph:
    """A cluster that is being started in a folder of its own."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._configuration = folder / "ceph.conf"

    def start(self) -> str:
        """Bring it up; the address of its gateway."""
        cluster, monitor_port, gateway_port = str(uuid.uuid4()), _free_port(), _free_port()
        for name in ("mon", "osd", "run"):
            (self._folder / name).mkdir()
        text = _CONFIGURATION.format(cluster=cluster, monitor_port=monitor_port, folder=self._folder)
        self._configuration.write_text(text)
        self._start_monitor(cluster, monitor_port)
        self._start_osd(cluster)
        self._begin(
            "radosgw", "-n", "client.admin", f"--rgw-frontends=beast endpoint=127.0.0.1:{gateway_port} tcp_nodelay=1"
        )
        self._wait_for(gateway_port)
        return f"http://127.0.0.1:{gateway_port}"

    def new_user(self, name: str) -> tuple[str, str]:
        """Somebody who may use the gateway: the id of a key, and its secret."""
        told = json.loads(self.run("radosgw-admin", "user", "create", f"--uid={name}", f"--display-name={name}"))
        key = told["keys"][0]
        return str(key["access_key"]), str(key["secret_key"])

    def run(self, program: str, *arguments: str) -> str:
        """What a command says that ends by itself."""
        command = [program, "-c", str(self._configuration), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr[-_LOG_BYTES:]}{self._logs()}"
        return done.stdout

    def _start_monitor(self, cluster: str, port: int) -> None:
        keyring, monitors = str(self._folder / "keyring"), str(self._folder / "monmap")
        everything = [word for part in ("mon", "osd", "mgr", "mds") for word in ("--cap", part, "allow *")]
        _run("ceph-authtool", "-C", keyring, "--gen-key", "-n", "client.admin", *everything)
        _run("ceph-authtool", keyring, "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
        _run("monmaptool", "--create", "--fsid", cluster, "--addv", "a", f"[v2:127.0.0.1:{port}]", monitors)
        self.run("ceph-mon", "-i", "a", "--mkfs", "--monmap", monitors, "--keyring", keyring)
        self._begin("ceph-mon", "-i", "a")

    def _start_osd(self, cluster: str) -> None:
        self.run("ceph", "--connect-timeout", "60", "osd", "new", cluster)
        rights = ["mon", "allow profile osd", "osd", "allow *", "mgr", "allow profile osd"]
        key = self.run("ceph", "auth", "get-or-create", "osd.0", *rights)
        with (self._folder / "keyring").open("a") as file:
            file.write(key)
        self.run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", cluster)
        self._begin("ceph-osd", "-i", "0")

    def _begin(self, program: str, *arguments: str) -> None:
        """Start what does not end by itself; it is killed at the end, and with this process at the latest."""
        with (self._folder / f"{program}.out").open("wb") as out:
            process = subprocess.Popen(
                [program, "-c", str(self._configuration), *arguments, "-f"],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                preexec_fn=_die_with_parent,
            )
        self._stack.callback(_end, process)

    def _wait_for(self, port: int) -> None:
        end = time.monotonic() + START_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                assert time.monotonic() < end, f"the gateway does not listen{self._logs()}"
                time.sleep(_POLL_S)
            else:
                return

    def _logs(self) -> str:
        """The ends of all logs: what is needed where it fails on a machine that nobody can look at."""
        paths = sorted([*self._folder.glob("*.out"), *self._folder.glob("*.log")])
        return "".join(
            f"\n== {path.name}\n{path.read_bytes()[-_LOG_BYTES:].decode(errors='replace')}" for path in paths
        )


@contextmanager
def ceph_cluster() -> Iterator[tuple[Ceph, S3Server]]:
    """Run Ceph; the cluster, and its gateway with somebody who may make buckets there."""
    folder = Path(tempfile.mkdtemp(prefix="backthen-ceph-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        ceph = Ceph(folder, stack)
        endpoint = ceph.start()
        key_id, secret = ceph.new_user("owner")
        yield ceph, S3Server(endpoint, key_id, secret)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.setsid()  # Ctrl-C is for the tests


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _run(*command: str) -> None:
    subprocess.run(command, capture_output=True, timeout=COMMAND_S, check=True)


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
