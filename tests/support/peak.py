"""Runs a command and prints its wall time, processor time and peak anonymous memory (mapped files do not count).

Both are of all its processes; what they share counts once.

python -m tests.support.peak COMMAND [ARGUMENT ...]
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

_INTERVAL_S = 0.02


class Usage(NamedTuple):
    """What a command took: seconds, seconds of processor time, bytes at the peak, and how it ended."""

    wall_s: float
    cpu_s: float
    anonymous_bytes: int
    exit_code: int


def measure(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    output: BinaryIO | None = None,
) -> Usage:
    """Run a command to its end: with this process's environment, folder and output where none is given."""
    begun = time.perf_counter()
    process = subprocess.Popen(command, env=environment, cwd=folder, stdout=output, stderr=output)
    peak = 0
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            cpu = usage.ru_utime + usage.ru_stime
            return Usage(time.perf_counter() - begun, cpu, peak, process.returncode)
        peak = max(peak, sum(map(anonymous_bytes, _family(process.pid))))
        time.sleep(_INTERVAL_S)


def anonymous_bytes(pid: int) -> int:
    """Anonymous memory of a process now in bytes, and its share of what others have, too; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss_Anon")), 0)


def _family(pid: int) -> list[int]:
    """A process and all that it started, as far as they run."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for thread in threads for child in (thread / "children").read_text().split()]
    except OSError:
        return [pid]
    return [pid, *(member for child in children for member in _family(child))]


def main() -> int:
    """Measure the command of the command line."""
    usage = measure(sys.argv[1:])
    peak_mib = usage.anonymous_bytes / (1 << 20)
    print(f"wall {usage.wall_s:.2f} s, processor {usage.cpu_s:.2f} s, anonymous {peak_mib:.0f} MiB", file=sys.stderr)
    return usage.exit_code


if __name__ == "__main__":
    sys.exit(main())
