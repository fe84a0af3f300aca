"""The configuration file: TOML in the platform's usual place, holding defaults that need not be typed again.

Nothing secret is in it: a password may be named by file or by command only.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from backthen.cli.failures import ConfigurationError
from backthen.cli.replacing import replace_file

KEYS = (
    "repository",
    "password-file",
    "password-command",
    "cache-dir",
    "cache-limit",
    "upload-limit",
    "download-limit",
)
_BYTES_MAX = 1 << 20


@dataclass(frozen=True, slots=True)
class Configuration:
    """What the file says; None where it says nothing.

    Attributes:
        unknown: keys that this version does not know.
    """

    path: Path
    repository: str | None = None
    password_file: str | None = None
    password_command: str | None = None
    cache_dir: str | None = None
    cache_limit: str | None = None
    upload_limit: str | None = None
    download_limit: str | None = None
    unknown: tuple[str, ...] = ()


def read_configuration(path: Path) -> Configuration:
    """The configuration in a file; an empty one where there is no file. Paths in it may begin with `~`.

    Raises:
        ConfigurationError: the file cannot be read, is not TOML, or holds a value that is not text.
    """
    text = _read(path)
    if text is None:
        return Configuration(path)
    import tomllib

    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"the configuration file {path} is not TOML: {error}") from error
    for key in KEYS:
        if key in values and not isinstance(values[key], str):
            raise ConfigurationError(f"the configuration file {path}: `{key}` must be text in quotation marks")
    return Configuration(
        path,
        repository=values.get("repository") or None,
        password_file=values.get("password-file") or None,
        password_command=values.get("password-command") or None,
        cache_dir=values.get("cache-dir") or None,
        cache_limit=values.get("cache-limit") or None,
        upload_limit=values.get("upload-limit") or None,
        download_limit=values.get("download-limit") or None,
        unknown=tuple(key for key in values if key not in KEYS),
    )


def record_repository(configuration: Configuration, location: str) -> bool:
    """Write `location` into the file as the repository, unless one is recorded there; whether it was written.

    What is in the file otherwise is kept. A file that is a link is written where the link points.

    Raises:
        ConfigurationError: the file cannot be written, or the location cannot be written as text.
    """
    if configuration.repository is not None:
        return False
    path = configuration.path
    try:
        line = f"repository = {_toml_text(location)}\n"
        # First in the file, because what follows the heading of a table belongs to the table.
        replace_file(path, (line + (_read(path) or "")).encode())
    except (OSError, UnicodeEncodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its name is not UTF-8"
        raise ConfigurationError(f"the repository cannot be recorded in {path}: {reason}") from error
    return True


def _toml_text(text: str) -> str:
    # JSON's strings are TOML's but for one control character, which TOML wants escaped.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _read(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return file.read(_BYTES_MAX).decode()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError(f"the configuration file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"the configuration file {path} is not UTF-8") from error
