"""`backthen umount`: the folder is an ordinary one again."""

from __future__ import annotations

import os

import click

from backthen.cli.bookmarks import bookmarks_path, remove_bookmark
from backthen.cli.documents import print_document
from backthen.cli.failures import ExitCode
from backthen.cli.names import shown_text
from backthen.cli.options import current_settings, global_options
from backthen.cli.paths import absolute_folder
from backthen.cli.session import start_logging


@click.command()
@click.argument("mountpoint")
@click.option("--lazy", is_flag=True, help="Also when it is in use: programs keep what they have open.")
@click.option("--remove-bookmark", "is_bookmark_removed", is_flag=True, help="Take its bookmark away, too.")
@global_options()
def umount(mountpoint: str, lazy: bool, is_bookmark_removed: bool) -> ExitCode:
    """Take a mount away, also one whose process has died."""
    from backthen.fsmount import unmount

    settings = current_settings()
    start_logging(settings)
    folder = absolute_folder(mountpoint)
    if is_bookmark_removed:
        remove_bookmark(bookmarks_path(), folder)
    os.chdir("/")  # Called from inside the mount, this process is not to be what keeps it busy.
    unmount(folder, lazy=lazy)
    if settings.json:
        print_document({"mountpoint": str(folder)})
    elif not settings.quiet:
        print(f"Unmounted {shown_text(str(folder))}")
    return ExitCode.DONE
