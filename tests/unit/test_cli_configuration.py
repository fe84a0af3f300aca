"""The configuration file, and what holds before it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from backthen.cli.configuration import Configuration, read_configuration, record_repository
from backthen.cli.failures import ConfigurationError
from backthen.cli.passwords import GivenPassword, PasswordCommand, PasswordFile, Terminal
from backthen.cli.settings import Options, resolve_settings


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_no_file_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "none.toml"
    assert Configuration(path) == read_configuration(path)


def test_a_file_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "c.toml", 'repository = "/r"\npassword-file = "~/p"\nnew-key = 1\n')
    assert Configuration(path, repository="/r", password_file="~/p", unknown=("new-key",)) == read_configuration(path)


@pytest.mark.parametrize("text", ["repository = ", "repository = 3", "cache-dir = ['a']"])
def test_a_broken_file_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"c\.toml"):
        read_configuration(write(tmp_path / "c.toml", text))


@pytest.mark.parametrize("location", ["/home/me/backups", '/a "quoted" \\ one', "/Übung\n", "/tab\tdel\x7f"])
def test_what_is_recorded_is_read_again(tmp_path: Path, location: str) -> None:
    path = tmp_path / "new" / "config.toml"
    assert record_repository(Configuration(path), location)
    assert location == read_configuration(path).repository


def test_recording_keeps_what_is_there(tmp_path: Path) -> None:
    path = write(tmp_path / "c.toml", '# mine\ncache-dir = "/c"\n[later]\na = 1\n')
    path.chmod(0o640)
    record_repository(read_configuration(path), "/r")
    assert (read_configuration(path).repository, read_configuration(path).cache_dir) == ("/r", "/c")
    assert "# mine" in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o640
    assert [path] == list(tmp_path.iterdir())


def test_recording_goes_through_a_link(tmp_path: Path) -> None:
    real = write(tmp_path / "dotfiles" / "real.toml", "")
    link = tmp_path / "c.toml"
    link.symlink_to(real)
    record_repository(read_configuration(link), "/r")
    assert link.is_symlink()
    assert read_configuration(real).repository == "/r"


def test_a_second_repository_is_not_recorded(tmp_path: Path) -> None:
    path = write(tmp_path / "c.toml", 'repository = "/first"\n')
    assert not record_repository(read_configuration(path), "/second")
    assert read_configuration(path).repository == "/first"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("CONFIG", "DATA", "CACHE", "STATE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    return tmp_path


def test_options_hold_before_the_environment_and_that_before_the_file(home: Path) -> None:
    write(home / "config/backthen/config.toml", 'repository = "/file"\ncache-dir = "~/cached"\n')
    environment = {"BACKTHEN_REPOSITORY": "/environment"}
    assert resolve_settings(Options(repository="/option"), environment).location == "/option"
    assert resolve_settings(Options(), environment).location == "/environment"
    assert resolve_settings(Options(), {"BACKTHEN_REPOSITORY": ""}).location == "/file"
    assert home / "cached" == resolve_settings(Options(), {}).cache


def test_without_any_setting_the_repository_is_in_the_data_folder(home: Path) -> None:
    settings = resolve_settings(Options(), {})
    assert (str(home / "data/backthen/repository"), False) == (settings.location, settings.is_location_given)
    assert (home / "cache/backthen", home / "state/backthen") == (settings.cache, settings.state)


def test_a_relative_location_is_made_absolute(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    assert os.path.join(os.getcwd(), "b") == resolve_settings(Options(repository="a/../b"), {}).location
    assert resolve_settings(Options(repository="file:///x"), {}).location == "file:///x"


@pytest.mark.usefixtures("home")
def test_places_of_the_password_have_an_order() -> None:
    environment = {"BACKTHEN_PASSWORD_COMMAND": "c", "BACKTHEN_PASSWORD": "v"}
    assert PasswordFile(Path("f")) == resolve_settings(Options(password_file="f"), dict(environment)).password
    assert PasswordCommand("c") == resolve_settings(Options(), dict(environment)).password
    assert GivenPassword(b"v") == resolve_settings(Options(), {"BACKTHEN_PASSWORD": "v"}).password
    assert Terminal() == resolve_settings(Options(), {}).password


@pytest.mark.usefixtures("home")
def test_the_password_is_taken_out_of_the_environment() -> None:
    environment = {"BACKTHEN_PASSWORD": "v", "PATH": "/bin"}
    resolve_settings(Options(password_file="f"), environment)
    assert environment == {"PATH": "/bin"}


def test_an_unknown_key_is_warned_about(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(home / "config/backthen/config.toml", 'pasword-file = "x"\n')
    resolve_settings(Options(), {})
    assert "`pasword-file`" in capsys.readouterr().err
