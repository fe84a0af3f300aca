"""What holds for one run of the program: options before environment before configuration file before defaults."""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path

from backthen.cli.configuration import Configuration, read_configuration
from backthen.cli.notices import warn
from backthen.cli.passwords import PasswordSource, Terminal, choose_source

PROGRAM = "backthen"


@dataclass(frozen=True, slots=True)
class Options:
    """The global options of the command line; None and 0 where not given."""

    repository: str | None = None
    password_file: str | None = None
    password_command: str | None = None
    cache_dir: str | None = None
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
        verbosity: 0, or how often `-v` was given.
    """

    location: str
    is_location_given: bool
    password: PasswordSource
    cache: Path
    state: Path
    logs: Path
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
        UsageFailure: a password file and a password command are both given.
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
        configuration=configuration,
        json=options.json,
        quiet=options.quiet,
        verbosity=options.verbose,
        debug=options.debug,
    )


def absolute_location(location: str) -> str:
    """A location that means the same in every working directory; what has a scheme (`file://`) stays as it is."""
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


def _from_home(path: str | None) -> str | None:
    return os.path.expanduser(path) if path else None
