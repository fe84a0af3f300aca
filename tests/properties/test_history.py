"""The past of paths against a model that looks at every snapshot."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from backthen.fsmount.view import ROOT_NUMBER, Listed, Owner, View, history_view
from backthen.repository.history import past_at, timeline, union_children
from tests.support.history import NS, Described, Folder, MemoryHistory, Name

NAMES = st.sampled_from([b"a", b"b", b"c.txt"])
CONTENTS = st.integers(0, 2)


@st.composite
def trees(draw: st.DrawFn, depth: int = 3) -> dict[bytes, object]:
    """A folder: for each name a content, a linked content (negative), or a folder."""
    kinds = st.one_of(CONTENTS, st.integers(-2, -1), trees(depth - 1)) if depth else CONTENTS
    return draw(st.dictionaries(NAMES, kinds, max_size=3))


def described(history: MemoryHistory, tree: dict[bytes, object], linked: int) -> Folder:
    children: dict[bytes, Described] = {}
    for name, what in tree.items():
        if isinstance(what, dict):
            children[name] = described(history, what, linked)
        elif isinstance(what, int) and what < 0:
            children[name] = Name(b"%d" % what, history.writer.file(b"linked %d %d" % (what, linked)))
        else:
            children[name] = history.writer.file(str(what).encode())
    return Folder(children)


def model(
    tree: dict[bytes, object], linked: int, path: tuple[bytes, ...] = ()
) -> Iterator[tuple[tuple[bytes, ...], object]]:
    """Every path with its content, or None for a folder."""
    yield path, None
    for name, what in tree.items():
        if isinstance(what, dict):
            yield from model(what, linked, (*path, name))
        else:
            yield (*path, name), (what, linked if isinstance(what, int) and what < 0 else 0)


HISTORIES = st.lists(st.tuples(trees(), CONTENTS, st.integers(0, 5)), min_size=1, max_size=6)


@given(HISTORIES)
def test_past_is_what_looking_at_every_snapshot_finds(histories: list[tuple[dict[bytes, object], int, int]]) -> None:
    history = MemoryHistory()
    for number, (tree, linked, time_s) in enumerate(histories):
        history.add(described(history, tree, linked), started_ns=time_s * NS, host=str(number))
    in_time = sorted(histories, key=lambda each: each[2])
    seen: dict[tuple[bytes, ...], dict[object, tuple[int, int]]] = {}
    for index, (tree, linked, _) in enumerate(in_time):
        for path, content in model(tree, linked):
            first, _last = seen.setdefault(path, {}).get(content, (index, index))
            seen[path][content] = (first, index)

    all_trees = timeline([history.tree(info) for info in history.snapshots()])
    source = history.blobs.source
    for path, contents in seen.items():
        past = past_at(source, all_trees, b"/".join(path))
        spans = [(sighting.first, sighting.last) for sighting in past.contents]
        assert sorted(span for content, span in contents.items() if content is not None) == sorted(spans)
        assert spans == sorted(spans)
        children = union_children(source, all_trees, past)
        assert sorted({other[-1] for other in seen if other[:-1] == path and other}) == [each.name for each in children]
        for child in children:
            below = past_at(source, all_trees, b"/".join((*path, child.name)))
            assert (child.first, child.place) == (below.oldest.first, below.oldest.node.place)
            assert (child.mtime_ns, child.is_folder) == (below.mtime_ns, bool(below.folders))
        if path and None in contents:
            assert (contents[None][0], contents[None][1]) == (
                min(sighting.first for sighting in past.folders),
                max(sighting.last for sighting in past.folders),
            )


@given(HISTORIES)
def test_numbers_of_the_union_are_found_again_and_differ(histories: list[tuple[dict[bytes, object], int, int]]) -> None:
    history = MemoryHistory()
    for number, (tree, linked, time_s) in enumerate(histories):
        history.add(described(history, tree, linked), started_ns=time_s * NS, host=str(number))
    view, other = (history_view(history, Owner(0, 0), lambda: 0) for _ in range(2))
    top = view.lookup(view.source, ROOT_NUMBER, b"versions")
    folders: list[int] = []

    def walk(directory: int) -> None:
        folders.append(directory)
        for name, found, _ in _listed(view, directory):
            assert found == view.lookup(view.source, directory, name)
            # In another mount, where nothing was looked up before.
            assert found == other.attributes(other.source, found.number)
            if found.is_directory:
                walk(found.number)

    walk(top.number)
    assert len(folders) == len(set(folders))


def _listed(view: View, directory: int) -> list[Listed]:
    opened = view.open_directory(view.source, directory)
    return list(view.read_directory(view.source, opened, 0))
