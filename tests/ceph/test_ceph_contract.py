"""What `storage/contract.py` promises, kept by Ceph."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from backthen.repository import Storage, open_storage
from tests.support.s3_server import S3Server
from tests.unit.test_storage_contract import (  # noqa: F401  They are collected here once more, for another storage.
    test_a_closed_storage_begins_anew,
    test_a_missing_object_is_missing,
    test_an_empty_object_is_an_object,
    test_any_buffer_is_put,
    test_create_refuses_a_repository_and_what_may_be_one,
    test_deleted_is_gone_and_may_be_deleted_again,
    test_folders_from_elsewhere_are_refused,
    test_names_from_elsewhere_are_refused,
    test_nobody_sees_a_part_of_an_object,
    test_one_of_many_racers_wins,
    test_put_file_of_a_taken_name_removes_the_file_alone,
    test_put_file_takes_the_file,
    test_put_never_changes_an_object,
    test_ranges,
    test_thousands_of_objects_are_all_listed,
    test_threads_put_get_list_and_delete_side_by_side,
    test_what_was_put_is_got_and_listed,
)


@pytest.fixture
def storage(s3_server: S3Server) -> Iterator[Storage]:
    storage = open_storage(s3_server.new_location(), s3_server.access)
    yield storage
    storage.close()
