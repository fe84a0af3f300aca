"""Setting owner, mode, extended attributes and times, each where it is allowed and supported.

Order: owner, then mode (a change of owner clears set-user-id), then access control lists and capabilities (a change
of mode alters
the first, one of owner clears the second), times last. `user.` attributes come before the mode, which may forbid
writing.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from collections.abc import Callable

from backthen.repository.model.entry import Entry, EntryType
from backthen.repository.restore.tally import Note, Tally
from backthen.repository.source import Xattrs, reason_of

_ACLS = (b"system.posix_acl_access", b"system.posix_acl_default")
_USER = b"user."
_UNSUPPORTED = frozenset((errno.ENOTSUP, errno.ENOSYS))
_FORBIDDEN = frozenset((errno.EPERM, errno.EACCES))
_OWNERS_KEPT_MAX = 10_000

Handle = int | bytes
"""An open file, or a path under /proc that leads to one without a race."""


class AttributeSetter:
    """Sets attributes for whoever runs this; what cannot be set becomes a note."""

    def __init__(self, tally: Tally) -> None:
        self._notes = tally.notes
        self._user = os.geteuid()
        self._groups = frozenset((os.getegid(), *os.getgroups()))
        self._owners: dict[tuple[str, str, int, int], tuple[int, int]] = {}

    @property
    def is_root(self) -> bool:
        """Whether owners and devices can be restored."""
        return self._user == 0

    def set_all(self, handle: Handle, entry: Entry, xattrs: Xattrs, *, clear_acl: bool) -> str:
        """Set all attributes of what was made; returns what went wrong, or empty.

        Args:
            handle: what was made.
            entry: its attributes.
            xattrs: its extended attributes.
            clear_acl: it may have access control lists that it should not have.

        Raises:
            OSError: mode or times cannot be set.
        """
        lost = self._set_owner(handle, entry)
        before = tuple(pair for pair in xattrs if pair[0].startswith(_USER)) if xattrs else ()
        problem = self._set_xattrs(handle, before)
        if entry.type != EntryType.SYMLINK:
            os.chmod(handle, self._mode(entry, lost) if lost else entry.mode)
        if clear_acl:
            self._clear_acls(handle, xattrs)
        if xattrs:
            problem = self._set_xattrs(handle, tuple(pair for pair in xattrs if pair not in before)) or problem
        os.utime(handle, ns=(entry.mtime_ns, entry.mtime_ns))
        return problem

    def update(self, handle: Handle, entry: Entry, xattrs: Xattrs, status: os.stat_result, found: Xattrs) -> str:
        """Set all attributes of something that is kept if any differs; returns what went wrong, or empty.

        Args:
            handle: what is kept.
            entry: the attributes it should have.
            xattrs: the extended attributes it should have.
            status: the attributes it has.
            found: the extended attributes it has.

        Raises:
            OSError: mode or times cannot be set.
        """
        uid, gid = self._owner(entry)
        same_owner = (status.st_uid, status.st_gid) == (uid, gid) or not self.is_root
        same_mode = entry.type == EntryType.SYMLINK or stat.S_IMODE(status.st_mode) == entry.mode
        if same_owner and same_mode and status.st_mtime_ns == entry.mtime_ns and found == xattrs:
            return ""
        return self.set_all(handle, entry, xattrs, clear_acl=True)

    def _owner(self, entry: Entry) -> tuple[int, int]:
        """User and group by name where this system knows the name, else by number."""
        key = (entry.user, entry.group, entry.uid, entry.gid)
        owner = self._owners.get(key)
        if owner is None:
            uid = _number(entry.user, lambda name: pwd.getpwnam(name).pw_uid)
            gid = _number(entry.group, lambda name: grp.getgrnam(name).gr_gid)
            owner = (entry.uid if uid is None else uid, entry.gid if gid is None else gid)
            if len(self._owners) >= _OWNERS_KEPT_MAX:
                self._owners.clear()
            self._owners[key] = owner
        return owner

    def _set_owner(self, handle: Handle, entry: Entry) -> int:
        """Set the owner as far as allowed; returns the mode bits that must not be set then."""
        uid, gid = self._owner(entry)
        try:
            if self.is_root:
                os.chown(handle, uid, gid)
                return 0
            if gid in self._groups:
                os.chown(handle, -1, gid)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EINVAL, errno.ENOTSUP):
                raise
            self._notes[Note.OWNER] += 1
            return stat.S_ISUID | stat.S_ISGID
        lost = 0 if uid == self._user else stat.S_ISUID
        lost |= 0 if gid in self._groups else stat.S_ISGID
        if lost:
            self._notes[Note.OWNER] += 1
        return lost

    def _mode(self, entry: Entry, lost: int) -> int:
        if entry.is_directory or not entry.mode & lost:
            return entry.mode
        self._notes[Note.SET_ID] += 1
        return entry.mode & ~lost

    def _set_xattrs(self, handle: Handle, xattrs: Xattrs) -> str:
        problem = ""
        for name, value in xattrs:
            try:
                os.setxattr(handle, name, value)
            except OSError as error:
                if error.errno in _UNSUPPORTED:
                    self._notes[Note.XATTR_UNSUPPORTED] += 1
                elif error.errno in _FORBIDDEN:
                    self._notes[Note.XATTR_PRIVILEGED] += 1
                else:
                    problem = f"extended attribute {os.fsdecode(name)} cannot be set: {reason_of(error)}"
        return problem

    def _clear_acls(self, handle: Handle, xattrs: Xattrs) -> None:
        wanted = {name for name, _ in xattrs}
        for name in _ACLS:
            if name not in wanted:
                try:
                    os.removexattr(handle, name)
                except OSError as error:
                    if error.errno not in _UNSUPPORTED | {errno.ENODATA, errno.EPERM, errno.EACCES}:
                        raise


def _number(name: str, find: Callable[[str], int]) -> int | None:
    try:
        return find(name) if name else None
    except (KeyError, ValueError):
        return None
