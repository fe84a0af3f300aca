"""Who a user is to an S3 server, and where that is: the environment and the profiles that Amazon's own tools read.

What wins over what is as it is there: keys in the environment, a web identity, a profile, a container's credentials,
and at last the metadata of a virtual machine; but that only where it is asked for.
"""

from __future__ import annotations

import configparser
import json
import os
import shlex
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from backthen.cli.failures import ConfigurationError
from backthen.cli.names import shown_text

PROCESS_TIMEOUT_S = 120
_KEY_ID, _SECRET, _TOKEN = "aws_access_key_id", "aws_secret_access_key", "aws_session_token"
_WEB_IDENTITY = {
    "aws_web_identity_token_file": "AWS_WEB_IDENTITY_TOKEN_FILE",
    "aws_role_arn": "AWS_ROLE_ARN",
    "aws_role_session_name": "AWS_ROLE_SESSION_NAME",
}
_CONTAINER = {
    "aws_container_credentials_relative_uri": "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "aws_container_credentials_full_uri": "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "aws_container_authorization_token_file": "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
}
_METADATA_ADDRESS = "http://169.254.169.254"
_NESTED = "s3"
_ELSEWHERE = ("sso_session", "sso_start_url", "role_arn", "source_profile", "credential_source", "login_session")

Profile = Mapping[str, str]


def aws_options(environment: Mapping[str, str]) -> dict[str, str]:
    """The options for `s3://`, as `StorageAccess.bucket_options` has them.

    Raises:
        ConfigurationError: a profile or a file that is named is not there or cannot be used, or half a key is given.
    """
    profile = _profile(environment)
    places = {
        "aws_region": environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or profile.get("region"),
        "aws_endpoint_url": environment.get("AWS_ENDPOINT_URL_S3")
        or environment.get("AWS_ENDPOINT_URL")
        or profile.get("endpoint_url"),
        "root_certificate": _certificate(environment.get("AWS_CA_BUNDLE") or profile.get("ca_bundle")),
    }
    return {**_credentials(environment, profile), **{name: value for name, value in places.items() if value}}


def _credentials(environment: Mapping[str, str], profile: Profile) -> dict[str, str]:
    named = {name: environment.get(name.upper(), "") for name in (_KEY_ID, _SECRET, _TOKEN)}
    if named[_KEY_ID] or named[_SECRET]:
        return _checked_keys(named, "the environment", str.upper)
    if environment.get("AWS_WEB_IDENTITY_TOKEN_FILE"):
        return _renamed(environment, _WEB_IDENTITY)
    name = shown_text(_profile_name(environment))
    if profile.get(_KEY_ID) or profile.get(_SECRET):
        return _checked_keys({key: profile.get(key, "") for key in named}, f"the profile {name}")
    if profile.get("credential_process"):
        return _checked_keys(_ask_process(profile["credential_process"], name), f"the profile {name}")
    if any(profile.get(key) for key in _ELSEWHERE):
        raise ConfigurationError(
            f"the profile {name} gets its credentials by signing on or by a role, which is not done here",
            hint="Give another profile the line `credential_process = aws configure export-credentials "
            f"--profile {name} --format process`, and set AWS_PROFILE to it.",
        )
    if container := _renamed(environment, _CONTAINER):
        return container
    address = environment.get("AWS_EC2_METADATA_SERVICE_ENDPOINT")
    if address or environment.get("AWS_EC2_METADATA_DISABLED", "").lower() == "false":
        return {"aws_metadata_endpoint": address or _METADATA_ADDRESS}
    return {}


def _checked_keys(keys: Mapping[str, str], source: str, spell: Callable[[str], str] = str) -> dict[str, str]:
    if not (keys[_KEY_ID] and keys[_SECRET]):
        missing = spell(_SECRET if keys[_KEY_ID] else _KEY_ID)
        raise ConfigurationError(f"{source} has half a key: {missing} is missing", hint="Give both, or neither.")
    return {name: value for name, value in keys.items() if value}


def _renamed(environment: Mapping[str, str], names: Mapping[str, str]) -> dict[str, str]:
    return {option: environment[name] for option, name in names.items() if environment.get(name)}


def _certificate(path: str | None) -> str | None:
    if not path:
        return None
    try:
        return Path(os.path.expanduser(path)).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"AWS_CA_BUNDLE or `ca_bundle`: {shown_text(path)} cannot be read as certificates"
        ) from error


def _profile_name(environment: Mapping[str, str]) -> str:
    return environment.get("AWS_PROFILE") or environment.get("AWS_DEFAULT_PROFILE") or "default"


def _profile(environment: Mapping[str, str]) -> Profile:
    """What the two files say together; where both say something, that of credentials wins."""
    name = _profile_name(environment)
    config = _read(environment.get("AWS_CONFIG_FILE") or "~/.aws/config")
    credentials = _read(environment.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials")
    sections = [file[section] for file, section in (
        (config, "default" if name == "default" else f"profile {name}"),
        (credentials, name),
    ) if file.has_section(section)]  # fmt: skip
    if not sections and name != "default":
        raise ConfigurationError(
            f"there is no profile {shown_text(name)} in ~/.aws/config or ~/.aws/credentials",
            hint="Check AWS_PROFILE, AWS_CONFIG_FILE and AWS_SHARED_CREDENTIALS_FILE.",
        )
    profile = {key: value for section in sections for key, value in section.items()}
    services = f"services {profile.get('services', '')}"
    if config.has_section(services):
        profile |= _nested(config[services].get(_NESTED, ""))
    return profile


def _read(path: str) -> configparser.RawConfigParser:
    # No section is a default of others here, and nothing in a secret stands for something else.
    parser = configparser.RawConfigParser(strict=False, default_section="", allow_no_value=True, delimiters=("=",))
    file = Path(os.path.expanduser(path))
    try:
        parser.read_string(file.read_text())
    except FileNotFoundError:
        pass
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{shown_text(str(file))} cannot be read") from error
    except configparser.Error:
        # The parser's own words, and what it was called with, show lines of the file.
        raise ConfigurationError(
            f"{shown_text(str(file))} is not a file of profiles", hint="It has a line outside of any [section]."
        ) from None
    return parser


def _nested(text: str) -> dict[str, str]:
    """What stands indented below a key."""
    pairs = (line.partition("=") for line in text.splitlines())
    return {key.strip(): value.strip() for key, sign, value in pairs if sign}


def _ask_process(command: str, profile: str) -> dict[str, str]:
    """The keys that a command gives, in the way that Amazon's tools have set down."""
    try:
        done = subprocess.run(shlex.split(command), stdout=subprocess.PIPE, check=True, timeout=PROCESS_TIMEOUT_S)
        answer = json.loads(done.stdout)
        names = {_KEY_ID: "AccessKeyId", _SECRET: "SecretAccessKey", _TOKEN: "SessionToken"}
        return {option: str(answer.get(name) or "") for option, name in names.items()}
    except (OSError, ValueError, AttributeError, subprocess.SubprocessError):
        # A cause would show the command, and it may have printed keys.
        raise ConfigurationError(
            f"the `credential_process` of the profile {profile} gave no credentials", hint="Run it by hand to see why."
        ) from None
