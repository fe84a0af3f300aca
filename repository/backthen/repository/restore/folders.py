"""The open directories below the target, from it down to the current one.

Invariants: every name is reached through an open descriptor of its directory and no link is followed, so nothing
outside of the
target is ever touched, whatever stands or is planted in it. The number of descriptors is bounded at any depth.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from backthen.repository.errors import TargetError
from backthen.repository.source import path_of

DESCRIPTORS_MAX = 64
ABSENT = -2
_CLOSED = -1
_FILLING_MODE = 0o700
_OPEN_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LOOK_FLAGS = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEFAULT_ACL = "system.posix_acl_default"
_NOT_A_DIRECTORY = (errno.ENOTDIR, errno.ELOOP)


class Folder:
    """A directory in the target.

    Attributes:
        name: its raw name.
        descriptor: it, open; `ABSENT` when a dry run did not find it.
        is_made: it was made by this restore, so that nothing else stands in it.
        inherits_acl: what is made in it gets access control lists by itself.
        mode_before: its permissions before they were widened so that it can be filled; None when they were not.
    """

    __slots__ = ("descriptor", "identity", "inherits_acl", "is_made", "mode_before", "name")

    def __init__(self, name: bytes, descriptor: int, *, is_made: bool, inherits_acl: bool) -> None:
        self.name = name
        self.descriptor = descriptor
        self.is_made = is_made
        self.inherits_acl = inherits_acl
        self.mode_before: int | None = None
        self.identity = _identity(descriptor) if descriptor >= 0 else (0, 0)

    def narrow(self) -> None:
        """Give it back the permissions it had, when it does not get those of the snapshot.

        Raises:
            OSError: they cannot be set.
        """
        if self.mode_before is not None:
            os.fchmod(self.descriptor, self.mode_before)

    def close(self) -> None:
        """Close the descriptor; may be called again."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = _CLOSED


class Folders:
    """A stack of open directories. Close it."""

    def __init__(self, top: Folder, *, read_only: bool, descriptors_max: int = DESCRIPTORS_MAX) -> None:
        """Begin in the target.

        Args:
            top: the target; it is closed together with this.
            read_only: make and change nothing; directories that are not there are `ABSENT`.
            descriptors_max: how many directories are open at once, besides the target.
        """
        self._stack = [top]
        self._read_only = read_only
        self._descriptors_max = descriptors_max
        self._first_open = 1

    def __len__(self) -> int:
        return len(self._stack)

    @property
    def current(self) -> Folder:
        """The directory that was entered last."""
        return self._stack[-1]

    @property
    def top(self) -> Folder:
        """The target."""
        return self._stack[0]

    def close(self) -> None:
        """Close all descriptors."""
        for folder in self._stack:
            folder.close()

    def enter(self, name: bytes, may_replace: Callable[[os.stat_result], bool]) -> Folder:
        """Go down into a directory, made where it is missing.

        Args:
            name: the directory's name.
            may_replace: whether something else that stands there may be removed.

        Raises:
            OSError: it cannot be made or opened, or something else stands there.
        """
        parent = self.current
        if self._read_only:
            folder = _find(parent, name)
        elif parent.is_made:
            folder = _make(parent, name)
        else:
            folder = _find_or_make(parent, name, may_replace)
        self._stack.append(folder)
        if len(self._stack) - self._first_open > self._descriptors_max:
            self._stack[self._first_open].close()
            self._first_open += 1
        return folder

    def leave(self) -> Folder:
        """Go up. The directory that is left is still open, for its attributes to be set; the caller closes it.

        Raises:
            TargetError: the directory above was moved away.
        """
        done = self._stack.pop()
        above = self._stack[-1]
        if above.descriptor == _CLOSED:
            above.descriptor = self._reopen(above, done)
            self._first_open = len(self._stack) - 1
        return done

    def _reopen(self, folder: Folder, child: Folder) -> int:
        """A closed directory again: through its child, or where that was moved by its path from the target."""
        if child.descriptor >= 0:
            descriptor = _open_same(b"..", child.descriptor, folder)
            if descriptor != _CLOSED:
                return descriptor
        current = os.dup(self.top.descriptor)
        for step in self._stack[1:]:
            found = _open_same(step.name, current, step)
            os.close(current)
            if found == _CLOSED:
                raise TargetError("a folder in the target was moved away while it was being filled")
            current = found
        return current


def open_top(target: bytes, *, read_only: bool) -> Folder:
    """The folder restored into; links on the way to it are the user's, and followed.

    Raises:
        TargetError: it cannot be made or opened.
    """
    is_made = False
    try:
        if not read_only and not os.path.isdir(target):
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.mkdir(target, _FILLING_MODE)
            is_made = True
        descriptor = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        if read_only:
            return Folder(b"", ABSENT, is_made=True, inherits_acl=False)
        raise _unusable(target, error) from error
    except OSError as error:
        raise _unusable(target, error) from error
    return Folder(b"", descriptor, is_made=is_made, inherits_acl=_has_default_acl(descriptor))


def _unusable(target: bytes, error: OSError) -> TargetError:
    return TargetError(f"{os.fsdecode(target)} cannot be used: {error.strerror}", hint="Choose another --target.")


def _find(parent: Folder, name: bytes) -> Folder:
    """A directory that is there, or one that is absent."""
    absent = parent.descriptor == ABSENT
    if not absent:
        try:
            descriptor = os.open(name, _OPEN_FLAGS, dir_fd=parent.descriptor)
            return Folder(name, descriptor, is_made=False, inherits_acl=False)
        except OSError as error:
            if error.errno not in (errno.ENOENT, *_NOT_A_DIRECTORY):
                raise
    return Folder(name, ABSENT, is_made=True, inherits_acl=False)


def _make(parent: Folder, name: bytes) -> Folder:
    os.mkdir(name, _FILLING_MODE, dir_fd=parent.descriptor)
    descriptor = os.open(name, _OPEN_FLAGS, dir_fd=parent.descriptor)
    return Folder(name, descriptor, is_made=True, inherits_acl=parent.inherits_acl)


def _find_or_make(parent: Folder, name: bytes, may_replace: Callable[[os.stat_result], bool]) -> Folder:
    try:
        return _make(parent, name)
    except FileExistsError:
        pass
    try:
        descriptor, mode_before = _open_existing(parent, name)
    except OSError as error:
        if error.errno not in _NOT_A_DIRECTORY:
            raise
        if not may_replace(os.stat(name, dir_fd=parent.descriptor, follow_symlinks=False)):
            raise FileExistsError(errno.EEXIST, "something else stands in its place") from error
        os.unlink(name, dir_fd=parent.descriptor)
        return _make(parent, name)
    folder = Folder(name, descriptor, is_made=False, inherits_acl=_has_default_acl(descriptor))
    folder.mode_before = mode_before
    return folder


def _open_existing(parent: Folder, name: bytes) -> tuple[int, int | None]:
    """Open a directory so that it can be filled: (descriptor, its permissions if they had to be widened)."""
    handle = os.open(name, _LOOK_FLAGS, dir_fd=parent.descriptor)
    try:
        status = os.fstat(handle)
        mode = stat.S_IMODE(status.st_mode)
        is_widened = mode & _FILLING_MODE != _FILLING_MODE and status.st_uid == os.geteuid() != 0
        if is_widened:
            os.chmod(path_of(handle), mode | _FILLING_MODE)
        return os.open(b".", _OPEN_FLAGS, dir_fd=handle), mode if is_widened else None
    finally:
        os.close(handle)


def _has_default_acl(descriptor: int) -> bool:
    try:
        return _DEFAULT_ACL in os.listxattr(descriptor)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return False
        raise


def _identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def _open_same(name: bytes, directory: int, expected: Folder) -> int:
    """Open a directory if it is still the one expected, else `_CLOSED`."""
    try:
        descriptor = os.open(name, _OPEN_FLAGS, dir_fd=directory)
    except OSError:
        return _CLOSED
    if _identity(descriptor) != expected.identity:
        os.close(descriptor)
        return _CLOSED
    return descriptor
