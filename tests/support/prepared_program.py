"""The program run hundreds of times: each run is a process of its own, forked from one that is ready.

What is spared is the start of Python and, for a password and parameters that were met before, the key derivation.
Everything else is the program as it is installed: arguments, environment and standard streams in, an exit code out.

    python -m tests.support.prepared_program        one run for each JSON line on standard input
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, TypedDict

from tests.cli.conftest import Done, User

if TYPE_CHECKING:
    from backthen.repository.crypto import KdfParameters

ROOT = Path(__file__).parents[2]


class Run(TypedDict):
    """One run as it is asked for."""

    arguments: list[str]
    environment: dict[str, str]
    out: str
    err: str


class PreparedProgram:
    """Runs the program; use in a `with`."""

    def __init__(self, folder: Path, *, prefix: Sequence[str] = ()) -> None:
        """Keep the output of a run in a folder until it is read.

        Args:
            folder: for files of its own.
            prefix: a command that ends by becoming the one that is given to it, in surroundings of its making.
        """
        self._folder = folder
        self._process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "tests.support.prepared_program"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )

    def __enter__(self) -> PreparedProgram:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for pipe in self._pipes():
            pipe.close()
        self._process.wait()

    @property
    def root(self) -> Path:
        """The file system as the program sees it."""
        return Path(f"/proc/{self._process.pid}/root")

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        return self._process.stdin, self._process.stdout

    def run(
        self, user: User, *arguments: str, code: int | None = 0, variables: Mapping[str, str] | None = None
    ) -> Done:
        """As `User.run`, and never with words of somebody who did not expect this."""
        out, err = self._folder / "prepared.out", self._folder / "prepared.err"
        request = Run(
            arguments=list(arguments),
            environment={**user.environment, **(variables or {})},
            out=str(out),
            err=str(err),
        )
        requests, answers = self._pipes()
        requests.write(json.dumps(request).encode() + b"\n")
        requests.flush()
        answer = answers.readline()
        assert answer, "the prepared program ended"
        done = Done(int(answer), out.read_bytes(), err.read_text(errors="replace"))
        for word in ("Traceback", "unexpected error", "Fatal Python error", "AssertionError"):
            assert word not in done.err, f"{arguments}: {done.err}"
        assert code is None or done.code == code, f"{arguments} ended with {done.code}: {done.err}"
        return done


def _serve() -> None:
    for module in ("check", "restore", "browse", "snapshot", "mount", "key", "init", "stats"):
        import_module(f"backthen.cli.commands.{module}")
    for module in ("session", "exits", "reporting", "progress", "daemon", "documents"):
        import_module(f"backthen.cli.{module}")
    import_module("backthen.fsmount")
    engine = import_module("backthen.repository")
    for name in engine.__all__:
        getattr(engine, name)
    locked = import_module("backthen.repository.locked")
    derive = cache(locked.derive_master)
    locked.derive_master = derive  # type: ignore[attr-defined]
    gc.collect()
    gc.freeze()  # what is never looked at by the collector stays shared between the processes
    for line in sys.stdin:
        run: Run = json.loads(line)
        _derive(derive, run["environment"])
        child = os.fork()
        if child == 0:
            _become(run)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _derive(derive: Callable[[bytes, KdfParameters], bytes], environment: Mapping[str, str]) -> None:
    """Derive the key now, so that every later run has it at hand."""
    from backthen.repository.crypto import decode_config
    from backthen.repository.errors import RepositoryError

    try:
        header = decode_config((Path(environment["BACKTHEN_REPOSITORY"]) / "config").read_bytes())
        password = Path(environment["BACKTHEN_PASSWORD_FILE"]).read_bytes().removesuffix(b"\n")
    except (RepositoryError, OSError, KeyError):
        return
    derive(password, header.kdf)


def _become(run: Run) -> None:
    """Be the program, to the end of this process."""
    from backthen.cli.main import run as run_program

    code = 70
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for stream, path in ((1, run["out"]), (2, run["err"])):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), stream)
        os.environ.clear()
        os.environ.update(run["environment"])
        code = run_program(run["arguments"])
        sys.stdout.flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    _serve()
