"""The story of a file as extended attributes, for whoever asks for one of them by its name.

They are never listed: `cp -a`, `rsync -X` and `tar --xattrs` copy what is listed, and would put them on every file that
they bring back, to be saved again by the next snapshot. An attribute of such a name that was saved with the file comes
first.
"""

from __future__ import annotations

from backthen.fsmount.view.layout import Located
from backthen.fsmount.view.names import time_text
from backthen.fsmount.view.versions import Versions
from backthen.repository import BlobSource, count_contents, find_sighting

STORY_PREFIX = b"user.backthen."
_SNAPSHOT = b"snapshot"
_VERSIONS = b"versions"
_FIRST_SEEN = b"first-seen"
_LAST_SEEN = b"last-seen"


def tell_story(
    source: BlobSource, versions: Versions | None, located: Located, name: bytes, *, wait: bool
) -> bytes | None:
    """The value of one of the attributes, or None where there is none of that name.

    A file of several names has only the snapshot: its number does not say which of its names is meant.

    Args:
        source: to read from.
        versions: the union of all snapshots, if they are all shown.
        located: whose story.
        name: the attribute's name, which begins with `STORY_PREFIX`.
        wait: whether it may take long.

    Raises:
        Gone: the snapshot is not shown any more.
        NotInMemory: `wait` is not set, and it takes longer.
        RepositoryError: what is needed cannot be read.
    """
    what = name.removeprefix(STORY_PREFIX)
    if what == _SNAPSHOT:
        return located.snapshot.id.hex().encode()
    if what not in (_VERSIONS, _FIRST_SEEN, _LAST_SEEN) or versions is None or located.node.entry.names:
        return None
    past = versions.past_of(source, located, wait=wait)
    entry = located.node.entry
    if what == _VERSIONS:
        contents, folders = count_contents(past)
        return b"%d" % (folders if entry.is_directory else contents)
    sighting = find_sighting(past, entry)
    if sighting is None:
        return None
    shown = versions.seen(sighting.first if what == _FIRST_SEEN else sighting.last)
    return time_text(shown.tree.root.started_ns).encode()
