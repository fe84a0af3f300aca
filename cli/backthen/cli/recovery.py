"""How a recovery key is shown."""

from __future__ import annotations

import sys


def print_recovery_key(recovery_key: str) -> None:
    """Print the key alone on standard output, and what to do with it on standard error."""
    print(f"\n    {recovery_key}\n", flush=True)
    print("Write it down. It is not shown again, and is asked for wherever a password is.", file=sys.stderr)
