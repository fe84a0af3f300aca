"""`backthen key`: the passwords and recovery keys that open the repository."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from backthen.cli.documents import print_document
from backthen.cli.failures import ExitCode
from backthen.cli.names import shown_text
from backthen.cli.options import current_settings, global_options, new_password_options
from backthen.cli.passwords import PasswordSource, Terminal, read_new_password
from backthen.cli.quantities import local_time, rfc3339
from backthen.cli.recovery import print_recovery_key
from backthen.cli.session import open_repository
from backthen.cli.settings import Settings
from backthen.cli.tables import table_lines

if TYPE_CHECKING:
    from backthen.repository import ObjectId, SlotInfo

_SHORT_ID = 8


@click.group()
@global_options()
def key() -> None:
    """Manage the passwords and recovery keys that open the repository."""


@key.command("list")
@global_options()
def list_() -> ExitCode:
    """List the ways into the repository; `*` marks the one that was used now."""
    from backthen.repository import list_access

    settings = current_settings()
    with open_repository(settings) as repository:
        slots = list_access(repository)
    if settings.json:
        print_document({"keys": [_slot_document(slot) for slot in slots]})
        return ExitCode.DONE
    rows = [
        (
            "*" if slot.current else " ",
            slot.id.hex()[:_SHORT_ID],
            slot.kind,
            local_time(slot.created_ns),
            shown_text(slot.host),
            shown_text(slot.user),
            shown_text(slot.label),
        )
        for slot in slots
    ]
    for line in table_lines((" ", "ID", "Kind", "Made", "Host", "User", "Label"), rows):
        print(line)
    return ExitCode.DONE


@key.command()
@new_password_options
@global_options()
def add(new_password: PasswordSource | None) -> ExitCode:
    """Add another password."""
    from backthen.repository import add_password

    settings = current_settings()
    with open_repository(settings) as repository:
        slot_id = add_password(repository, read_new_password(new_password or Terminal(), "Another password"))
    _tell_key(settings, "Added the password", slot_id)
    return ExitCode.DONE


@key.command()
@click.argument("id_", metavar="ID")
@global_options()
def remove(id_: str) -> ExitCode:
    """Remove a password or recovery key; ID is the beginning of what `key list` shows."""
    from backthen.repository import remove_access

    settings = current_settings()
    with open_repository(settings) as repository:
        slot = remove_access(repository, id_.strip().lower())
    if settings.json:
        print_document({"key": _slot_document(slot)})
    elif not settings.quiet:
        print(f"Removed the {slot.kind} {slot.id.hex()[:_SHORT_ID]}")
    return ExitCode.DONE


@key.command("change-password")
@new_password_options
@global_options()
def change_password(new_password: PasswordSource | None) -> ExitCode:
    """Replace the password that was used now by a new one."""
    from backthen import repository as engine

    settings = current_settings()
    with open_repository(settings) as repository:
        slot_id = engine.change_password(repository, read_new_password(new_password or Terminal(), "New password"))
    _tell_key(settings, "The password was changed; it is now", slot_id)
    return ExitCode.DONE


@key.command("recovery-key")
@global_options()
def recovery_key() -> ExitCode:
    """Make a recovery key, to be kept on paper: it opens the repository like a password."""
    from backthen.repository import add_recovery_key

    settings = current_settings()
    with open_repository(settings) as repository:
        text, slot_id = add_recovery_key(repository)
    if settings.json:
        print_document({"recovery_key": text, "key": {"id": slot_id.hex()}})
    else:
        print_recovery_key(text)
    return ExitCode.DONE


def _tell_key(settings: Settings, what: str, slot_id: ObjectId) -> None:
    if settings.json:
        print_document({"key": {"id": slot_id.hex()}})
    elif not settings.quiet:
        print(f"{what} {slot_id.hex()[:_SHORT_ID]}")


def _slot_document(slot: SlotInfo) -> dict[str, object]:
    return {
        "id": slot.id.hex(),
        "kind": slot.kind,
        "time": rfc3339(slot.created_ns),
        "host": slot.host,
        "user": slot.user,
        "label": slot.label,
        "current": slot.current,
    }
