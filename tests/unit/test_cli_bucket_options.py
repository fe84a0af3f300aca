"""What the environment and the files of each cloud's tools say about buckets."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

import pytest

from backthen.cli.bucket_options import bucket_options, harmless_variables, secret_variable
from backthen.cli.failures import ConfigurationError

SECRET = "planted-Secret/Key+0123456789"
KEYS = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": SECRET}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".aws").mkdir()
    return tmp_path


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _refusal(environment: dict[str, str]) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        bucket_options("s3://bucket/prefix", environment)
    assert SECRET not in "".join(traceback.format_exception(caught.value)) + caught.value.hint
    return caught.value


@pytest.mark.parametrize("location", ["/folder", "file:///folder", "sftp://host/folder"])
def test_what_is_no_bucket_has_no_options(location: str) -> None:
    assert bucket_options(location, KEYS) == {}


def test_nothing_is_said() -> None:
    assert [{}, {}, {}] == [bucket_options(f"{scheme}://bucket/prefix", {}) for scheme in ("s3", "gs", "az")]


def test_keys_in_the_environment() -> None:
    environment = {
        **KEYS,
        "AWS_SESSION_TOKEN": "token",
        "AWS_REGION": "eu-central-1",
        "AWS_ENDPOINT_URL": "https://one",
    }
    expected = {
        "aws_access_key_id": "AKID",
        "aws_secret_access_key": SECRET,
        "aws_session_token": "token",
        "aws_region": "eu-central-1",
        "aws_endpoint_url": "https://one",
    }
    assert expected == bucket_options("s3://bucket/prefix", environment)
    assert expected == bucket_options("S3://bucket/prefix", environment)


def test_what_is_more_exact_wins() -> None:
    environment = {
        "AWS_DEFAULT_REGION": "general",
        "AWS_REGION": "exact",
        "AWS_ENDPOINT_URL": "https://general",
        "AWS_ENDPOINT_URL_S3": "https://exact",
    }
    expected = {"aws_region": "exact", "aws_endpoint_url": "https://exact"}
    assert expected == bucket_options("s3://bucket", environment)


@pytest.mark.parametrize("missing", sorted(KEYS))
def test_half_a_key_is_refused(missing: str) -> None:
    error = _refusal({name: value for name, value in KEYS.items() if name != missing})
    assert f"the environment has half a key: {missing} is missing" == str(error)


def test_a_profile_out_of_two_files(home: Path) -> None:
    _write(home / ".aws/credentials", f"[backup]\naws_access_key_id = AKID\naws_secret_access_key={SECRET}%s\n")
    config = "[profile backup]\nregion = eu-west-3\nservices = own\nendpoint_url = https://general\n"
    _write(home / ".aws/config", f"{config}[services own]\ns3 =\n  endpoint_url = https://own:9000\nec2 =\n  x = y\n")
    expected = {
        "aws_access_key_id": "AKID",
        "aws_secret_access_key": f"{SECRET}%s",
        "aws_region": "eu-west-3",
        "aws_endpoint_url": "https://own:9000",
    }
    assert expected == bucket_options("s3://bucket", {"AWS_PROFILE": "backup"})
    assert bucket_options("s3://bucket", {}) == {}


def test_the_profile_of_those_who_name_none(home: Path) -> None:
    _write(home / ".aws/config", f"[default]\naws_access_key_id = AKID\naws_secret_access_key = {SECRET}\n")
    assert {"aws_access_key_id": "AKID", "aws_secret_access_key": SECRET} == bucket_options("s3://bucket", {})


def test_keys_in_the_environment_win_over_a_profile_whose_region_counts(home: Path) -> None:
    _write(home / ".aws/credentials", "[p]\naws_access_key_id = other\naws_secret_access_key = other\n")
    _write(home / ".aws/config", "[profile p]\nregion = eu-west-3\n")
    options = bucket_options("s3://bucket", {**KEYS, "AWS_PROFILE": "p"})
    assert ("AKID", "eu-west-3") == (options["aws_access_key_id"], options["aws_region"])


def test_files_may_be_elsewhere(home: Path) -> None:
    _write(home / "elsewhere/c", f"[p]\naws_access_key_id = AKID\naws_secret_access_key = {SECRET}\n")
    environment = {"AWS_PROFILE": "p", "AWS_SHARED_CREDENTIALS_FILE": "~/elsewhere/c"}
    assert bucket_options("s3://bucket", environment)["aws_secret_access_key"] == SECRET


def test_a_profile_that_is_not_there() -> None:
    assert "no profile nowhere" in str(_refusal({"AWS_PROFILE": "nowhere"}))


def test_what_is_no_file_of_profiles_is_not_shown(home: Path) -> None:
    _write(home / ".aws/credentials", f"aws_secret_access_key = {SECRET}\n")
    assert "is not a file of profiles" in str(_refusal({}))


def test_a_profile_that_signs_on_is_refused_with_a_way_out(home: Path) -> None:
    _write(home / ".aws/config", "[profile work]\nsso_session = x\nregion = r\n")
    error = _refusal({"AWS_PROFILE": "work"})
    assert "signing on" in str(error)
    assert "export-credentials --profile work" in error.hint


def test_a_program_gives_the_keys(home: Path) -> None:
    answer = f'{{"Version": 1, "AccessKeyId": "AKID", "SecretAccessKey": "{SECRET}", "SessionToken": "t"}}'
    _write(home / "answer", answer)
    _write(home / ".aws/config", f"[profile p]\ncredential_process = cat {home}/answer\n")
    expected = {"aws_access_key_id": "AKID", "aws_secret_access_key": SECRET, "aws_session_token": "t"}
    assert expected == bucket_options("s3://bucket", {"AWS_PROFILE": "p"})


@pytest.mark.parametrize("script", ["print('[]')", f"print('{SECRET}')", "raise SystemExit(1)"])
def test_a_program_that_gives_none(home: Path, script: str) -> None:
    _write(home / ".aws/config", f'[profile p]\ncredential_process = {sys.executable} -c "{script}"\n')
    assert "gave no credentials" in str(_refusal({"AWS_PROFILE": "p"}))


def test_a_virtual_machine_is_asked_only_where_that_is_wished() -> None:
    assert bucket_options("s3://b", {"AWS_EC2_METADATA_DISABLED": "true"}) == {}
    expected = {"aws_metadata_endpoint": "http://169.254.169.254"}
    assert expected == bucket_options("s3://b", {"AWS_EC2_METADATA_DISABLED": "false"})
    container = {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/x"}
    assert {"aws_container_credentials_relative_uri": "/v2/x"} == bucket_options("s3://b", container)


def test_a_web_identity() -> None:
    environment = {"AWS_WEB_IDENTITY_TOKEN_FILE": "/token", "AWS_ROLE_ARN": "arn:x"}
    expected = {"aws_web_identity_token_file": "/token", "aws_role_arn": "arn:x"}
    assert expected == bucket_options("s3://b", environment)


def test_an_authority_of_ones_own(home: Path) -> None:
    _write(home / "ca.pem", "PEM")
    assert {"root_certificate": "PEM"} == bucket_options("s3://b", {"AWS_CA_BUNDLE": "~/ca.pem"})
    assert "cannot be read" in str(_refusal({"AWS_CA_BUNDLE": "/nowhere"}))


def test_google_names_a_file_or_has_one_in_its_place(home: Path) -> None:
    own = home / ".config/gcloud/application_default_credentials.json"
    _write(own, "{}")
    assert {"google_application_credentials": str(own)} == bucket_options("gs://b", {})
    _write(home / "key.json", "{}")
    environment = {"GOOGLE_APPLICATION_CREDENTIALS": "~/key.json"}
    assert {"google_application_credentials": str(home / "key.json")} == bucket_options("gs://b", environment)
    with pytest.raises(ConfigurationError, match="does not name a file"):
        bucket_options("gs://b", {"GOOGLE_APPLICATION_CREDENTIALS": "/nowhere"})


def test_azure_by_single_variables_and_by_a_connection_string() -> None:
    expected = {"azure_storage_account_name": "acc", "azure_storage_account_key": SECRET}
    assert expected == bucket_options("az://c", {"AZURE_STORAGE_ACCOUNT": "acc", "AZURE_STORAGE_KEY": SECRET})
    text = f"DefaultEndpointsProtocol=https;AccountName=acc;AccountKey={SECRET}=="
    options = bucket_options("az://c", {"AZURE_STORAGE_CONNECTION_STRING": text})
    assert {"azure_storage_account_name": "acc", "azure_storage_account_key": f"{SECRET}=="} == options
    options = bucket_options(
        "az://c", {"AZURE_STORAGE_CONNECTION_STRING": f"{text};EndpointSuffix=core.chinacloudapi.cn"}
    )
    assert options["azure_storage_endpoint"] == "https://acc.blob.core.chinacloudapi.cn"


def test_secrets_of_the_environment_are_known_by_name() -> None:
    assert secret_variable("s3://b", KEYS) == "AWS_SECRET_ACCESS_KEY"
    assert secret_variable("s3://b", {"AWS_PROFILE": "p"}) is None
    assert secret_variable("/folder", KEYS) is None
    assert secret_variable("az://c", {"AZURE_STORAGE_SAS_TOKEN": "s"}) == "AZURE_STORAGE_SAS_TOKEN"


def test_what_is_no_secret_is_known_for_the_storage_that_it_is_about() -> None:
    environment = {**KEYS, "AWS_PROFILE": "p", "AWS_REGION": "", "CLOUDSDK_CONFIG": "/c", "HOME": "/h"}
    assert {"AWS_PROFILE": "p"} == harmless_variables("s3://b", environment)
    assert {"CLOUDSDK_CONFIG": "/c"} == harmless_variables("gs://b", environment)
    for location in ("sftp://host/folder", "/folder", "az://c"):
        assert {} == harmless_variables(location, environment)
