"""Why the view refuses a request: meanings, which each adapter translates for its platform.

Invariant: nothing but these and `NotInMemory` leaves the view. Every class here that has no subclass is in the table of
each adapter; a test holds that complete.
"""

from __future__ import annotations


class ViewError(Exception):
    """Base of all that the view refuses."""


class NotFound(ViewError):
    """The directory has no such name."""


class Gone(ViewError):
    """The number once stood for something whose snapshot has been forgotten since."""


class NotADirectory(ViewError):
    """Something was asked of a directory, but this is none."""


class NotAFile(ViewError):
    """Something was asked of a regular file, but this is none."""


class NotASymlink(ViewError):
    """Something was asked of a symlink, but this is none."""


class NoSuchAttribute(ViewError):
    """There is no extended attribute of that name."""


class ReadOnly(ViewError):
    """The past cannot be changed."""


class DamagedContent(ViewError):
    """What is stored is damaged or missing; the message names the object."""


class StorageUnavailable(ViewError):
    """The storage, or the local cache of it, did not give what is needed."""


class UnreadAtBackup(ViewError):
    """The content is not in the snapshot: it could not be read when the snapshot was made; the message says why."""
