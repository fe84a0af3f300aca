"""What a mounted history looks like; the same for the view alone and for real mounts."""

from __future__ import annotations

import errno
import stat

import pytest

from tests.mount.sample import ACL, BIG, LARGE_XATTR, MANY, ODD_NAMES, SECONDS_NS, SPARSE
from tests.mount.worlds import World
from tests.support.history import NS

KINDS = b"latest/kinds/"


def refusal(number: int) -> pytest.RaisesExc[OSError]:
    """Expect an OSError of that number."""
    return pytest.RaisesExc(OSError, check=lambda error: error.errno == number)


def check_has_xattrs(world: World) -> None:
    """Leave a test out where there are none."""
    if not world.limits.has_xattrs:
        pytest.skip("extended attributes are not shown there")


def test_top_holds_the_views_and_latest(world: World) -> None:
    around = [b".backthen", b"at", b"dates", b"hosts", b"latest", b"snapshots", b"tags", b"versions"]
    assert sorted(world.names(b"")) == around


def test_snapshots_are_named_by_time_host_and_id(world: World) -> None:
    names = sorted(world.names(b"snapshots"))

    assert [name.rsplit(b"_", 1)[0] for name in names] == [
        b"2026-11-22T22.20.05Z_t%5Fw%2Fo",
        b"2026-11-23T22.20.05Z_one",
        b"2026-11-23T22.20.05Z_one",
    ]
    assert {len(name.rsplit(b"_", 1)[1]) for name in names} == {8}


def test_latest_is_the_last_of_the_log_even_if_another_has_a_later_time(world: World) -> None:
    assert world.target(b"latest").startswith(b"snapshots/2026-11-22T22.20.05Z_t%5Fw%2Fo_")


@pytest.mark.parametrize(
    ("path", "count"), [(b"hosts/one", 2), (b"hosts/t%5Fw%2Fo", 1), (b"tags/we%5Fek%2Fly", 2), (b"tags/x", 1)]
)
def test_views_hold_relative_links_by_time(world: World, path: bytes, count: int) -> None:
    names = world.names(path)

    assert len(names) == len(set(names)) == count
    snapshots = world.names(b"snapshots")
    for name in names:
        target = world.target(path + b"/" + name)
        assert target.startswith(b"../../snapshots/" + name[:20])
        assert target.removeprefix(b"../../snapshots/") in snapshots


def test_snapshots_of_one_second_have_distinct_names(world: World) -> None:
    first, second = sorted(world.names(b"dates/2026/11/23"))

    assert first == b"2026-11-23T22.20.05Z"
    assert second.startswith(first + b"_")
    assert world.target(b"dates/2026/11/23/" + first) != world.target(b"dates/2026/11/23/" + second)


def test_a_path_leads_through_the_links(world: World) -> None:
    (time,) = world.names(b"tags/x")

    assert world.read(b"tags/x/" + time + b"/kinds/file", 0, 100) == b"hello\n"


def test_metadata_of_a_file_is_whole(world: World) -> None:
    found = world.lstat(KINDS + b"file")

    assert found.mode == world.limits.mode(stat.S_IFREG | 0o4751)
    assert found.nlink == world.limits.links(1)
    assert (found.uid, found.gid, found.size, found.blocks) == (1001, 1002, 6, 8)
    assert (found.mtime_ns, found.ctime_ns) == (world.limits.time(SECONDS_NS), world.limits.time(SECONDS_NS + 1))


def test_time_before_1970_is_kept(world: World) -> None:
    assert world.lstat(KINDS + b"old").mtime_ns == world.limits.time(-5 * NS + 7)


@pytest.mark.parametrize(
    ("name", "mode", "device"),
    [
        (b"fifo", stat.S_IFIFO | 0o620, (0, 0)),
        (b"socket", stat.S_IFSOCK | 0o777, (0, 0)),
        (b"character", stat.S_IFCHR | 0o666, (1, 300)),
        (b"block", stat.S_IFBLK | 0o660, (259, 7)),
        (b"symlink", stat.S_IFLNK | 0o777, (0, 0)),
        (b"nothing", stat.S_IFDIR | 0o1777, (0, 0)),
        (b"unknown", stat.S_IFREG, (0, 0)),
    ],
)
def test_kind_and_device_are_kept(world: World, name: bytes, mode: int, device: tuple[int, int]) -> None:
    found = world.lstat(KINDS + name)

    assert (found.mode, found.device) == (world.limits.mode(mode), device)


def test_symlink_points_where_it_did(world: World) -> None:
    assert world.target(KINDS + b"symlink") == b"nowhere\xff"


def test_names_of_one_file_share_number_and_count(world: World) -> None:
    found = [world.lstat(KINDS + name) for name in (b"first", b"second", b"deeper/third")]

    assert found[0] == found[1] == found[2]
    assert found[0].nlink == world.limits.links(3)
    assert world.read(KINDS + b"deeper/third", 0, 100) == b"linked content"


def test_numbers_differ_everywhere_else(world: World) -> None:
    paths = [b"", b"latest", b"snapshots", b"hosts", b"hosts/one"]
    paths += [b"snapshots/" + name for name in world.names(b"snapshots")]
    paths += [KINDS + name for name in world.names(KINDS) if name != b"second"]

    assert len({world.lstat(path).ino for path in paths}) == len(paths)


def test_directories_count_one_link(world: World) -> None:
    found = {world.lstat(path).nlink for path in (b"", b"snapshots", KINDS, KINDS + b"deeper")}
    assert found == {world.limits.links(1)}


def test_only_data_counts_as_allocated(world: World) -> None:
    found = world.lstat(KINDS + b"sparse")

    assert (found.size, found.blocks) == (len(SPARSE), 16)


def test_holes_read_as_zeros(world: World) -> None:
    assert world.read(KINDS + b"sparse", 4990, 20) == b"a" * 10 + bytes(10)
    assert world.read(KINDS + b"sparse", len(SPARSE) - 105, 1000) == bytes(5) + b"b" * 100


def test_file_of_many_chunks_reads_at_any_offset(world: World) -> None:
    assert b"".join(world.read(KINDS + b"big", offset, 131072) for offset in range(0, len(BIG), 131072)) == BIG
    assert world.read(KINDS + b"big", 299_999, 2) == BIG[299_999:300_001]
    assert world.read(KINDS + b"big", len(BIG), 10) == b""


def test_file_beyond_4_gib_reads_at_its_end(world: World) -> None:
    assert world.lstat(KINDS + b"huge").size == (5 << 30) + 3
    assert world.read(KINDS + b"huge", (5 << 30) - 2, 10) == bytes(2) + b"end"


def test_odd_names_are_listed_and_found(world: World) -> None:
    assert sorted(world.names(b"latest/odd")) == sorted(ODD_NAMES)
    for name in ODD_NAMES:
        assert world.read(b"latest/odd/" + name, 0, 300) == name


def test_large_directory_is_listed_whole_and_in_order(world: World) -> None:
    assert world.names(b"latest/many") == [f"{number:05d}".encode() for number in range(MANY)]
    assert world.read(b"latest/many/02999", 0, 10) == b"2999"


@pytest.mark.parametrize("path", [b"none", b"snapshots/none", KINDS + b"none", KINDS + b"nothing/none", b"hosts/none"])
def test_missing_names_are_not_found(world: World, path: bytes) -> None:
    with refusal(errno.ENOENT):
        world.lstat(path)


def test_empty_directory_is_empty(world: World) -> None:
    assert world.names(KINDS + b"nothing") == []


def test_file_is_no_directory(world: World) -> None:
    with refusal(errno.ENOTDIR):
        world.names(KINDS + b"empty")


def test_extended_attributes_are_kept(world: World) -> None:
    check_has_xattrs(world)
    assert world.xattrs(KINDS + b"attributed") == {b"user.small": b"1", b"user.zero": b""}
    assert world.xattrs(KINDS + b"attributed-much") == {b"user.large": LARGE_XATTR}
    assert world.xattrs(KINDS + b"file") == {}
    assert world.xattrs(b"snapshots") == {}


def test_acl_is_kept(world: World) -> None:
    check_has_xattrs(world)
    assert world.xattrs(KINDS + b"listed") == {b"system.posix_acl_access": ACL}
    assert world.lstat(KINDS + b"listed").mode == stat.S_IFREG | 0o640


def test_missing_attribute_is_said_to_be_missing(world: World) -> None:
    check_has_xattrs(world)
    with refusal(errno.ENODATA):
        world.xattr(KINDS + b"attributed", b"user.none")


@pytest.mark.parametrize("name", [b"unread", b"unknown"])
def test_what_was_not_read_at_backup_does_not_open(world: World, name: bytes) -> None:
    with refusal(errno.EIO):
        world.read(KINDS + name, 0, 1)


def test_directory_that_was_not_listed_at_backup_is_not_shown_as_empty(world: World) -> None:
    with refusal(errno.EIO):
        world.names(KINDS + b"unlisted")


def test_damage_in_one_file_leaves_the_rest_usable(world: World) -> None:
    with refusal(errno.EIO):
        world.read(KINDS + b"damaged", 1000, 10)
    assert world.read(KINDS + b"file", 0, 100) == b"hello\n"


def test_versions_hold_every_name_that_ever_was(world: World) -> None:
    assert sorted(world.names(b"versions")) == [b"home", b"kinds", b"many", b"odd"]
    assert world.names(b"versions/home") == [b"a"]
    assert len(world.names(b"versions/many")) == MANY
    assert sorted(world.names(b"versions/odd")) == sorted(ODD_NAMES)


def test_versions_of_a_file_are_its_distinct_contents(world: World) -> None:
    folder = b"versions/home/a"
    names = world.names(folder)

    assert len(names) == 2
    assert [world.read(folder + b"/" + name, 0, 10) for name in names] == [b"1", b"2"]
    assert names[1] == names[0] + b" (2)"
    assert stat.S_ISDIR(world.lstat(folder).mode)


def test_a_version_is_the_snapshots_own_file(world: World) -> None:
    for name in (b"file", b"big", b"first", b"attributed"):
        (version,) = world.names(b"versions/kinds/" + name)
        path = b"versions/kinds/" + name + b"/" + version

        assert world.lstat(path) == world.lstat(KINDS + name)
        if world.limits.has_xattrs:
            assert world.xattrs(path) == world.xattrs(KINDS + name)


def test_a_version_may_be_a_symlink(world: World) -> None:
    (version,) = world.names(b"versions/kinds/symlink")

    assert world.target(b"versions/kinds/symlink/" + version) == b"nowhere\xff"


def test_what_never_was_is_not_in_versions(world: World) -> None:
    for path in (b"versions/nothing", b"versions/home/b", b"versions/home/a/b", b"versions/home/a/2026"):
        with refusal(errno.ENOENT):
            world.lstat(path)


def test_a_time_as_a_path_leads_to_each_hosts_newest_snapshot_by_then(world: World) -> None:
    names = sorted(world.names(b"snapshots"))
    early, both = b"at/2026-11-23T10:15Z", b"at/2026-11-24"

    assert world.names(early) == world.names(early.replace(b":", b".")) == [b"t%5Fw%2Fo"]
    assert world.target(early + b"/t%5Fw%2Fo") == b"../../snapshots/" + names[0]
    assert sorted(world.names(both)) == [b"one", b"t%5Fw%2Fo"]
    assert world.read(both + b"/one/home/a", 0, 9) == b"2"
    assert world.names(b"at/1999-12-31") == []
    with refusal(errno.ENOENT):
        world.lstat(early + b"/one")


@pytest.mark.parametrize("name", [b"2026-13-01", b"soon", b".hidden", b"\xff", b"2026-11-24 25.00"])
def test_what_is_not_a_time_is_not_there(world: World, name: bytes) -> None:
    with refusal(errno.ENOENT):
        world.lstat(b"at/" + name)


def test_folders_of_times_are_not_listed(world: World) -> None:
    assert stat.S_ISDIR(world.lstat(b"at/yesterday 14.00").mode)
    assert world.names(b"at") == []


def test_a_file_tells_its_story_when_asked(world: World) -> None:
    check_has_xattrs(world)
    old, _ = world.names(b"versions/home/a")

    for path in (b"versions/home/a/" + old, b"hosts/one/2026-11-23T22.20.05Z/home/a"):
        assert len(world.xattr(path, b"user.backthen.snapshot")) == 64
        assert world.xattr(path, b"user.backthen.versions") == b"2"
        assert world.xattr(path, b"user.backthen.first-seen") == b"2026-11-23T22:20:05Z"
        assert world.xattr(path, b"user.backthen.last-seen") == b"2026-11-23T22:20:05Z"
        assert world.xattrs(path) == {}
    assert world.xattr(b"latest/kinds", b"user.backthen.versions") == b"1"


def test_a_file_of_several_names_tells_its_snapshot_alone(world: World) -> None:
    check_has_xattrs(world)

    assert len(world.xattr(KINDS + b"first", b"user.backthen.snapshot")) == 64
    with refusal(errno.ENODATA):
        world.xattr(KINDS + b"first", b"user.backthen.versions")


def test_there_is_no_other_story(world: World) -> None:
    check_has_xattrs(world)

    for path in (KINDS + b"file", b"versions/home"):
        with refusal(errno.ENODATA):
            world.xattr(path, b"user.backthen.plot")
