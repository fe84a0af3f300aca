"""What a user's environment says about buckets: where they are, and who the user is to them.

The names are those that the programs of each cloud read. Values may be secrets, and are in no message.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlunsplit

from backthen.cli.failures import ConfigurationError

_AZURE = {
    "azure_storage_account_name": ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT"),
    "azure_storage_account_key": ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCESS_KEY"),
    "azure_storage_sas_key": ("AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_SAS_KEY"),
    "azure_storage_endpoint": ("AZURE_STORAGE_ENDPOINT", "AZURE_STORAGE_SERVICE_ENDPOINT"),
    "azure_storage_tenant_id": ("AZURE_TENANT_ID",),
    "azure_storage_client_id": ("AZURE_CLIENT_ID",),
    "azure_storage_client_secret": ("AZURE_CLIENT_SECRET",),
    "azure_federated_token_file": ("AZURE_FEDERATED_TOKEN_FILE",),
    "azure_authority_host": ("AZURE_AUTHORITY_HOST",),
    "azure_msi_endpoint": ("IDENTITY_ENDPOINT", "MSI_ENDPOINT"),
}
_CONNECTION_STRING = {
    "AccountName": "azure_storage_account_name",
    "AccountKey": "azure_storage_account_key",
    "SharedAccessSignature": "azure_storage_sas_key",
    "BlobEndpoint": "azure_storage_endpoint",
}
_SECRETS = {
    "s3": ("AWS_SECRET_ACCESS_KEY",),
    "az": (
        "AZURE_STORAGE_CONNECTION_STRING",
        *_AZURE["azure_storage_account_key"],
        *_AZURE["azure_storage_sas_key"],
        "AZURE_CLIENT_SECRET",
    ),
}

_HARMLESS = {
    "s3": (
        "AWS_PROFILE",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_S3",
        "AWS_CONFIG_FILE",
        "AWS_SHARED_CREDENTIALS_FILE",
        "AWS_CA_BUNDLE",
    ),
    "gs": ("GOOGLE_APPLICATION_CREDENTIALS", "CLOUDSDK_CONFIG"),
    "az": ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT"),
}
"""Which server and which file of credentials are meant; none is a secret."""


def bucket_options(location: str, environment: Mapping[str, str]) -> dict[str, str]:
    """What `StorageAccess.bucket_options` is for a location; nothing where it is not a bucket.

    Raises:
        ConfigurationError: a file that the environment names cannot be used, or what it says makes no sense.
    """
    scheme = _scheme(location)
    if scheme == "s3":
        from backthen.cli.aws import aws_options

        return aws_options(environment)
    if scheme == "gs":
        return _google_options(environment)
    return _azure_options(environment) if scheme == "az" else {}


def secret_variable(location: str, environment: Mapping[str, str]) -> str | None:
    """The variable that holds the secret with which a bucket is reached, None where it is not in the environment."""
    names = _SECRETS.get(_scheme(location), ())
    return next((name for name in names if environment.get(name)), None)


def harmless_variables(location: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The variables with which a storage is reached, but those that may hold a secret."""
    return {name: environment[name] for name in _HARMLESS.get(_scheme(location), ()) if environment.get(name)}


def _google_options(environment: Mapping[str, str]) -> dict[str, str]:
    given = environment.get("GOOGLE_APPLICATION_CREDENTIALS")
    folder = environment.get("CLOUDSDK_CONFIG") or "~/.config/gcloud"
    path = Path(os.path.expanduser(given or f"{folder}/application_default_credentials.json"))
    if path.is_file():
        return {"google_application_credentials": str(path)}
    if given:
        raise ConfigurationError("GOOGLE_APPLICATION_CREDENTIALS does not name a file", hint="Check its path.")
    return {"google_metadata": "true"} if environment.get("GCE_METADATA_HOST") else {}


def _scheme(location: str) -> str:
    return location.partition("://")[0].lower()


def _azure_options(environment: Mapping[str, str]) -> dict[str, str]:
    options = _connection_string(environment.get("AZURE_STORAGE_CONNECTION_STRING", ""))
    for option, names in _AZURE.items():
        value = next((environment[name] for name in names if environment.get(name)), None)
        if value and option not in options:
            options[option] = value
    return options


def _connection_string(text: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in text.split(";") if part.strip())
    values = {key.strip(): value.strip() for key, _, value in pairs}
    options = {option: values[key] for key, option in _CONNECTION_STRING.items() if values.get(key)}
    if values.get("EndpointSuffix") and "BlobEndpoint" not in values and "AccountName" in values:
        protocol = values.get("DefaultEndpointsProtocol", "https")
        host = f"{values['AccountName']}.blob.{values['EndpointSuffix']}"
        options["azure_storage_endpoint"] = urlunsplit((protocol, host, "", "", ""))
    return options
