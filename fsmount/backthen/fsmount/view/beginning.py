"""The two views that there are: of all snapshots, and of one directory of one snapshot alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import tzinfo

from backthen.fsmount.view.at import At, Times, group_by_host
from backthen.fsmount.view.attributes import Owner
from backthen.fsmount.view.filesystem import AS_SAVED, Showing, View
from backthen.fsmount.view.history import History
from backthen.fsmount.view.layout import Maker, ShownSnapshot, tree_layout
from backthen.fsmount.view.listing import FixedLayout, FollowingLayout
from backthen.fsmount.view.versions import Versions
from backthen.repository import SnapshotInfo, now_ns


def history_view(
    history: History,
    owner: Owner,
    monotonic_ns: Callable[[], int],
    *,
    showing: Showing = AS_SAVED,
    now_ns: Callable[[], int] = now_ns,
    zone: tzinfo | None = None,
) -> View:
    """The view of all snapshots.

    Args:
        history: what is shown.
        owner: to whom all that is in no snapshot belongs.
        monotonic_ns: a clock that never goes back.
        showing: how it is shown.
        now_ns: the wall clock, for times such as `yesterday`.
        zone: what local times are local in; None for the machine's zone.

    Raises:
        RepositoryError: the list of snapshots cannot be read.
    """
    times = Times(history.inode_prf, now_ns, zone)

    def make(shown: Sequence[ShownSnapshot], numbers: Mapping[str, int]) -> Sequence[Maker]:
        at = At(group_by_host(shown), times, owner, numbers["at"])
        return at, Versions(shown, owner, zone, numbers["versions"])

    layouts = FollowingLayout(history, owner, monotonic_ns, make, showing.describe)
    return View(history, layouts, monotonic_ns, owner, showing, now_ns)


def tree_view(
    history: History,
    info: SnapshotInfo,
    path: bytes,
    owner: Owner,
    monotonic_ns: Callable[[], int],
    *,
    showing: Showing = AS_SAVED,
    now_ns: Callable[[], int] = now_ns,
) -> View:
    """The view of one directory of one snapshot alone; the other arguments are those of `history_view`.

    Raises:
        PathNotFound: the snapshot has no such path.
        NotADirectory: there is something else at the path.
        RepositoryError: it cannot be read.
    """
    tree = history.tree(info)
    node = tree.resolve(history.blobs.source, path)
    layout = tree_layout(info, tree, node, history.inode_prf, showing.describe)
    return View(history, FixedLayout(layout), monotonic_ns, owner, showing, now_ns)
