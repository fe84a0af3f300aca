"""Ceph, once for all tests here. `ci/test-ceph` installs it and calls them; `ci/test` leaves them out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest

from tests.support.ceph import Ceph, ceph_cluster
from tests.support.s3_server import BUCKET, S3Server


@pytest.fixture(scope="session")
def cluster() -> Iterator[tuple[Ceph, S3Server]]:
    with ceph_cluster() as (ceph, server):
        client(server).create_bucket(Bucket=BUCKET)
        yield ceph, server


@pytest.fixture(scope="session")
def ceph(cluster: tuple[Ceph, S3Server]) -> Ceph:
    return cluster[0]


@pytest.fixture(scope="session")
def s3_server(cluster: tuple[Ceph, S3Server]) -> S3Server:
    """Ceph's gateway in place of the server that the other tests use."""
    return cluster[1]


def client(server: S3Server) -> Any:  # noqa: ANN401  boto3 says no types
    """What an administrator does with a bucket."""
    return boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=server.key_id,
        aws_secret_access_key=server.secret,
        region_name=server.region,
    )
