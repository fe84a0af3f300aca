"""`at`: time as a path. Looking a time up makes its folder.

    at/2026-11-20T10:15/<host> -> ../../snapshots/<the newest of that host that was begun by then>

A time is whatever names one in a SNAPSHOT on the command line, `yesterday 14:00` too; dots do for colons in it, and `_`
or `-` for spaces.
Two texts are two folders even if they name one time, since a directory can be at one path only. Which snapshots the
folder holds is found out anew each time; only the texts that were looked up lately are remembered, as the numbers
cannot tell them.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from datetime import tzinfo

from backthen.fsmount.view.attributes import (
    Attributes,
    Owner,
    virtual_directory_attributes,
    virtual_symlink_attributes,
)
from backthen.fsmount.view.layout import MadeDirectory, ShownSnapshot, VirtualDirectory, VirtualSymlink
from backthen.fsmount.view.names import NAME_BYTES_MAX
from backthen.fsmount.view.numbers import Prf, virtual_number
from backthen.repository import BlobSource, LRUCache, parse_time

REMEMBERED_MAX = 8192
"""Times and hosts in them that are remembered: about 6 MiB."""

_HYPHEN = re.compile(r"(?<=[a-z])-|-(?=[a-z])", re.IGNORECASE)
_DOTTED_CLOCK = re.compile(r"(?:(?<=[ t])|^)(\d{1,2})\.(\d\d)(?:\.(\d\d))?(?![\d.])", re.IGNORECASE)


class Times:
    """Reads times as they are written, and remembers by number which were. Safe to use from several threads."""

    def __init__(self, prf: Prf, now_ns: Callable[[], int], zone: tzinfo | None) -> None:
        """Take what makes a time: the clock, and the zone; None for the machine's."""
        self._prf = prf
        self._now_ns = now_ns
        self._zone = zone
        self._looked_up: LRUCache[int, bytes | VirtualSymlink] = LRUCache(REMEMBERED_MAX)

    def remember_folder(self, text: bytes) -> int:
        """The number of a time's folder, which is about to be shown."""
        number = virtual_number(self._prf, b"/at/" + text)
        self._looked_up[number] = text
        return number

    def remember_link(self, text: bytes, host: bytes, target: bytes, started_ns: int, owner: Owner) -> VirtualSymlink:
        """A symlink that is about to be shown. One that leads elsewhere is another: the kernel keeps where it leads."""
        number = virtual_number(self._prf, b"/at/" + text + b"/" + host + b"\0" + target)
        link = VirtualSymlink(virtual_symlink_attributes(number, owner, started_ns, target), target)
        self._looked_up[number] = link
        return link

    def looked_up(self, number: int) -> bytes | VirtualSymlink | None:
        """The time, as it was written, or the symlink that the number was given to, if that is remembered."""
        return self._looked_up.get(number)

    def time_ns(self, text: bytes) -> int | None:
        """The time that a name stands for, or None."""
        try:
            written = text.decode("ascii")
        except UnicodeDecodeError:
            return None
        if len(text) > NAME_BYTES_MAX:
            return None
        spaced = _HYPHEN.sub(" ", written.replace("_", " "))
        now_ns = self._now_ns()
        found = parse_time(spaced, now_ns, self._zone)
        return parse_time(_with_colons(spaced), now_ns, self._zone) if found is None else found


class At:
    """The folder `at` of one layout. Safe to use from several threads."""

    def __init__(
        self, hosts: dict[bytes, list[tuple[int, ShownSnapshot]]], times: Times, owner: Owner, number: int
    ) -> None:
        """Take the snapshots that are shown.

        Args:
            hosts: the snapshots of each host by its name in the view, in the order of the log, with the times at
                which they were begun.
            times: reads the times.
            owner: to whom the folders belong.
            number: that of `at` itself.
        """
        # A stable sort: of those begun at one time, the last in the log comes last.
        self._hosts = {host: sorted(shown, key=_time_of) for host, shown in sorted(hosts.items())}
        self._times = times
        self._owner = owner
        self._number = number
        newest_ns = max((shown[-1][0] for shown in self._hosts.values()), default=0)
        self._top = MadeDirectory(virtual_directory_attributes(number, owner, newest_ns), self._folder_of)

    def place(
        self, source: BlobSource, number: int, *, wait: bool
    ) -> MadeDirectory | VirtualDirectory | VirtualSymlink | None:
        """What is at a number, or None where it is nothing of these."""
        if number == self._number:
            return self._top
        known = self._times.looked_up(number)
        if not isinstance(known, bytes):
            return known
        time_ns = self._times.time_ns(known)
        return None if time_ns is None else self._folder(known, time_ns)

    def _folder_of(self, text: bytes) -> Attributes | None:
        time_ns = self._times.time_ns(text)
        return None if time_ns is None else self._folder_attributes(text, time_ns)

    def _folder(self, text: bytes, time_ns: int) -> VirtualDirectory:
        children = {}
        for host in self._hosts:
            link = self._link(text, host, time_ns)
            if link is not None:
                children[host] = link.attributes
        return VirtualDirectory(self._folder_attributes(text, time_ns), children)

    def _folder_attributes(self, text: bytes, time_ns: int) -> Attributes:
        return virtual_directory_attributes(self._times.remember_folder(text), self._owner, time_ns)

    def _link(self, text: bytes, host: bytes, time_ns: int) -> VirtualSymlink | None:
        begun = self._hosts[host]
        index = bisect_right(begun, time_ns, key=_time_of) - 1
        if index < 0:
            return None
        started_ns, shown = begun[index]
        return self._times.remember_link(text, host, b"../../snapshots/" + shown.name.encode(), started_ns, self._owner)


def group_by_host(snapshots: Sequence[ShownSnapshot]) -> dict[bytes, list[tuple[int, ShownSnapshot]]]:
    """The snapshots of each host, in the order given."""
    hosts: dict[bytes, list[tuple[int, ShownSnapshot]]] = {}
    for shown in snapshots:
        hosts.setdefault(shown.host.encode(), []).append((shown.tree.root.started_ns, shown))
    return hosts


def _time_of(item: tuple[int, ShownSnapshot]) -> int:
    return item[0]


def _with_colons(text: str) -> str:
    return _DOTTED_CLOCK.sub(lambda match: ":".join(part for part in match.groups() if part), text)
