"""What holds for one run of the program: options before environment before configuration file before defaults."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path

from backthen.cli.configuration import Configuration, read_configuration
from backthen.cli.failures import UsageFailure
from backthen.cli.notices import warn
from backthen.cli.passwords import PasswordSource, Terminal, choose_source
from backthen.cli.quantities import parse_size, size_text

PROGRAM = "backthen"
_NEARLY_ELSEWHERE = re.compile(r"(?:sftp|ssh|s3|gs|az|file|rest):(?!//)|[^/@:]+@[^/:]+:", re.IGNORECASE)
"""As other programs write it: `sftp:host:/path`, `s3:bucket`, `user@host:/path`."""
RATE_MIN = 1024
"""Bytes a second: below that nothing would ever be done."""


@dataclass(frozen=True, slots=True)
class Options:
    """The global options of the command line; None and 0 where not given."""

    repository: str | None = None
    password_file: str | None = None
    password_command: str | None = None
    cache_dir: str | None = None
    cache_limit: str | None = None
    upload_limit: str | None = None
    download_limit: str | None = None
    json: bool = False
    quiet: bool = False
    verbose: int = 0
    debug: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    """What a command works with.

    Attributes:
        location: where the repository is; a local path is absolute.
        is_location_given: whether it was chosen by the user, in whatever way.
        cache, state, logs: the base folders of this user.
        cache_limit: bytes that may be kept of each repository that is elsewhere, None for as many as by default.
        upload_limit, download_limit: bytes a second that go to or come from elsewhere at most, None for no limit.
        verbosity: 0, or how often `-v` was given.
    """

    location: str
    is_location_given: bool
    password: PasswordSource
    cache: Path
    state: Path
    logs: Path
    cache_limit: int | None
    upload_limit: int | None
    download_limit: int | None
    configuration: Configuration
    json: bool
    quiet: bool
    verbosity: int
    debug: bool


def resolve_settings(options: Options, environment: MutableMapping[str, str]) -> Settings:
    """Settings from the options and the environment, and from the configuration file for what they leave open.

    BACKTHEN_PASSWORD is taken out of the environment, so that no child process inherits it.

    Raises:
        ConfigurationError: the configuration file cannot be used.
        UsageFailure: a password file and a password command are both given, or a size is none.
    """
    import platformdirs

    given = environment.pop("BACKTHEN_PASSWORD", None)
    configuration = read_configuration(platformdirs.user_config_path(PROGRAM) / "config.toml")
    for key in configuration.unknown if not options.quiet else ():
        warn(f"the configuration file {configuration.path} has the unknown key `{key}`")
    location = options.repository or environment.get("BACKTHEN_REPOSITORY") or _from_home(configuration.repository)
    cache_dir = options.cache_dir or environment.get("BACKTHEN_CACHE_DIR") or _from_home(configuration.cache_dir)
    return Settings(
        location=absolute_location(location or str(platformdirs.user_data_path(PROGRAM) / "repository")),
        is_location_given=location is not None,
        password=_password_source(options, environment, given, configuration),
        cache=Path(cache_dir).absolute() if cache_dir else platformdirs.user_cache_path(PROGRAM),
        state=platformdirs.user_state_path(PROGRAM),
        logs=platformdirs.user_log_path(PROGRAM),
        cache_limit=_size("cache-limit", options.cache_limit, environment, configuration.cache_limit, at_least=0),
        upload_limit=_size("upload-limit", options.upload_limit, environment, configuration.upload_limit),
        download_limit=_size("download-limit", options.download_limit, environment, configuration.download_limit),
        configuration=configuration,
        json=options.json,
        quiet=options.quiet,
        verbosity=options.verbose,
        debug=options.debug,
    )


def absolute_location(location: str) -> str:
    """A location that means the same in every working directory; what has a scheme (`file://`) stays as it is.

    Raises:
        UsageFailure: it is nearly one that is elsewhere, and would be taken for a folder here.
    """
    if _NEARLY_ELSEWHERE.match(location):  # it is not repeated: there may be a password in it
        raise UsageFailure(
            "the location is not one, though it looks like that of a server or a bucket",
            hint="Write sftp://user@host/path or s3://bucket/prefix (docs/storage.md); "
            "./ before the name of a folder that is here.",
        )
    return location if "://" in location else os.path.abspath(os.path.expanduser(location))


def _password_source(
    options: Options, environment: Mapping[str, str], given: str | None, configuration: Configuration
) -> PasswordSource:
    environment_file = environment.get("BACKTHEN_PASSWORD_FILE")
    environment_command = environment.get("BACKTHEN_PASSWORD_COMMAND")
    return (
        choose_source(options.password_file, options.password_command)
        or choose_source(environment_file, environment_command, given)
        or choose_source(configuration.password_file, configuration.password_command)
        or Terminal()
    )


def _size(
    name: str, option: str | None, environment: Mapping[str, str], configured: str | None, *, at_least: int = RATE_MIN
) -> int | None:
    """A size in bytes from the first place that says one.

    Raises:
        UsageFailure: what is said there is no size, or too small.
    """
    variable = f"BACKTHEN_{name.replace('-', '_').upper()}"
    places = ((f"--{name}", option), (variable, environment.get(variable)), (f"`{name}`", configured))
    for place, text in places:
        if text:
            size = parse_size(text)
            if size is None or size < at_least:
                least = f" of {size_text(at_least)} at least" if at_least else ""
                raise UsageFailure(f"{place}: {text!r} is not a size{least}", hint="Write it as in `500K` or `2M`.")
            return size
    return None


def _from_home(path: str | None) -> str | None:
    return os.path.expanduser(path) if path else None
