"""From the place of a bucket and what the caller says about reaching it to a store of obstore. Connects to nothing.

Nobody is asked for credentials who was not named: where obstore finds none, it would ask a cloud's metadata address,
which on any other machine is a stranger or nobody.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from backthen.repository.errors import InvalidAccess

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Credential

Store: TypeAlias = S3Store | GCSStore | AzureStore

ENDPOINT = "aws_endpoint_url"
_ENDPOINTS = {"s3": ENDPOINT, "gs": "google_base_url", "az": "azure_storage_endpoint"}
ROOT_CERTIFICATE = "root_certificate"
GOOGLE_METADATA = "google_metadata"
_KEY_ID, _SECRET, _TOKEN, _REGION = "aws_access_key_id", "aws_secret_access_key", "aws_session_token", "aws_region"
_ENDPOINT = re.compile(r"https?://(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?(?:/[!-~]*)?", re.ASCII)
_REGION_DEFAULT = "us-east-1"
_REQUEST_MAX = timedelta(days=1)
"""What obstore allows a whole request; that is bounded here by what a server sends, and how much it is."""

_CREDENTIALS = {
    "s3": (
        _KEY_ID,
        "aws_web_identity_token_file",
        "aws_container_credentials_relative_uri",
        "aws_container_credentials_full_uri",
        "aws_metadata_endpoint",
    ),
    "gs": ("google_application_credentials", "google_service_account_key", GOOGLE_METADATA),
    "az": (
        "azure_storage_account_key",
        "azure_storage_sas_key",
        "azure_storage_client_secret",
        "azure_federated_token_file",
        "azure_msi_endpoint",
    ),
}
"""What proves who one is: one of them is needed."""
_HINTS = {
    "s3": "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE (see docs/storage.md).",
    "gs": "Set GOOGLE_APPLICATION_CREDENTIALS to the file of a service account's key, "
    "or run `gcloud auth application-default login`.",
    "az": "Set AZURE_STORAGE_ACCOUNT_NAME, and AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN.",
}
SCHEMES = tuple(_CREDENTIALS)


class BucketPlace(NamedTuple):
    """Where objects are: one of `SCHEMES`, a bucket (on Azure, a container), and what all names in it begin with."""

    scheme: str
    bucket: str
    prefix: str

    def __str__(self) -> str:
        """As its user writes it."""
        return f"{self.scheme}://{self.bucket}" + (f"/{self.prefix}" if self.prefix else "")


def make_store(place: BucketPlace, options: Mapping[str, str], *, timeout_s: float) -> Store:
    """A store of obstore, which never tries again by itself.

    Args:
        place: where.
        options: see `StorageAccess.bucket_options`; beside what obstore knows, `root_certificate`, in PEM, is trusted
            beside the system's, and `google_metadata` allows to ask Google's metadata server for credentials.
        timeout_s: seconds after which a server that takes no connection counts as gone.

    Raises:
        InvalidAccess: there are no credentials among the options, or an option makes no sense.
    """
    if not any(options.get(name) for name in _CREDENTIALS[place.scheme]):
        raise InvalidAccess(f"there are no credentials for {place}", hint=_HINTS[place.scheme])
    endpoint = options.get(_ENDPOINTS[place.scheme], "")
    if endpoint:
        _check_endpoint(endpoint)
    config = dict(options)
    config.pop(GOOGLE_METADATA, None)
    client: ClientConfig = {"timeout": _REQUEST_MAX, "connect_timeout": timedelta(seconds=timeout_s)}
    if ROOT_CERTIFICATE in config:
        client["root_certificate"] = config.pop(ROOT_CERTIFICATE)
    retry: RetryConfig = {"max_retries": 0}
    prefix = place.prefix or None
    try:
        if place.scheme == "s3":
            return _s3_store(place.bucket, prefix, config, client, retry)
        client["allow_http"] = endpoint.startswith("http://")
        if place.scheme == "gs":
            return GCSStore(place.bucket, prefix=prefix, config=config, client_options=client, retry_config=retry)  # type: ignore[arg-type]
        return AzureStore(place.bucket, prefix=prefix, config=config, client_options=client, retry_config=retry)  # type: ignore[arg-type]
    except (BaseError, ValueError) as error:
        reason = type(error).__name__  # the text may hold what is in a file of credentials
        raise InvalidAccess(
            f"{place} cannot be reached with these settings ({reason})",
            hint="Check endpoint, region, and the files that hold credentials.",
        ) from None


def _check_endpoint(endpoint: str) -> None:
    """Hold an endpoint against what one is: obstore panics at some that are none.

    Raises:
        InvalidAccess: it is none; the message does not repeat it, since there may be a key in it.
    """
    if not _ENDPOINT.fullmatch(endpoint):
        raise InvalidAccess(
            "the endpoint is not the address of a server",
            hint="Write https://host, or https://host:port; a key does not belong there.",
        )


def _s3_store(
    bucket: str, prefix: str | None, config: dict[str, str], client: ClientConfig, retry: RetryConfig
) -> S3Store:
    region = config.setdefault(_REGION, _REGION_DEFAULT)
    endpoint = config.pop(ENDPOINT, "") or f"https://s3.{region}.amazonaws.com"
    client["allow_http"] = endpoint.startswith("http://")
    # Of the names that obstore has for it the one that wins over all others, those in the environment among them.
    config["aws_endpoint_url_s3"] = endpoint.rstrip("/")
    config["aws_disable_bulk_delete"] = "true"  # not all servers have it, and a single name gains nothing
    config["aws_checksum_algorithm"] = "SHA256"  # which a bucket with object lock insists on
    key_id, secret, token = (config.pop(name, None) for name in (_KEY_ID, _SECRET, _TOKEN))
    if key_id is None:
        return S3Store(bucket, prefix=prefix, config=config, client_options=client, retry_config=retry)  # type: ignore[arg-type]

    def credential() -> S3Credential:
        return {"access_key_id": key_id, "secret_access_key": secret or "", "token": token, "expires_at": None}

    # Handed over together, so that no part of it is completed from somewhere else.
    return S3Store(
        bucket,
        prefix=prefix,
        config=config,  # type: ignore[arg-type]
        client_options=client,
        retry_config=retry,
        credential_provider=credential,
    )
