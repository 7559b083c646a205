"""Settings from the environment and from files, and which of them are refused."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from rater.settings import Settings


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RATER_SETTINGS_FILE", raising=False)


def test_the_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "rater.toml"
    file.write_text('app_id = "from-file"\nbatch_records_max = 77\n')
    monkeypatch.setenv("RATER_SETTINGS_FILE", str(file))
    monkeypatch.setenv("RATER_APP_ID", "from-environment")
    settings = Settings()
    assert (settings.app_id, settings.batch_records_max) == ("from-environment", 77)


def test_an_unknown_key_in_the_file_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "rater.toml"
    file.write_text("batch_record_max = 77\n")
    monkeypatch.setenv("RATER_SETTINGS_FILE", str(file))
    with pytest.raises(ValidationError, match="batch_record_max"):
        Settings()


def test_a_value_out_of_bounds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATER_BATCH_RECORDS_MAX", "0")
    with pytest.raises(ValidationError, match="batch_records_max"):
        Settings()


def test_a_settings_file_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RATER_SETTINGS_FILE", str(tmp_path / "nothing.toml"))
    with pytest.raises(FileNotFoundError, match=r"nothing\.toml"):
        Settings()


@pytest.mark.parametrize(
    "given",
    [
        {"PAYMENT_GATEWAY": "stripe"},
        {"PAYMENT_GATEWAY": "webhook", "PAYMENT_WEBHOOK_URL": "https://payments.example.com"},
        {"PAYMENT_WEBHOOK_SECRET": "whsec_too short"},
        {"PAYMENT_WEBHOOK_URL": "http://payments.example.com"},
        {"STRIPE_API_URL": "http://127.0.0.1.example.com"},
    ],
    ids=["no key", "no secret", "no base64", "in the clear", "in the clear, disguised"],
)
def test_half_a_payment_gateway_or_an_open_one_is_refused(monkeypatch: pytest.MonkeyPatch, given: dict[str, str]) -> None:
    for name, value in given.items():
        monkeypatch.setenv(f"RATER_{name}", value)
    with pytest.raises(ValidationError):
        Settings()


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATER_STRIPE_API_KEY", "sk_live_secret")
    assert "sk_live_secret" not in repr(Settings()) + Settings().model_dump_json()


@pytest.mark.parametrize("bootstrap", ["kafka:9092", "127.0.0.1:9092,10.0.0.7:9092", "[fd00::1]:9092"])
def test_brokers_elsewhere_without_tls_are_refused_unless_allowed_by_name(bootstrap: str) -> None:
    with pytest.raises(ValidationError, match="in the clear"):
        Settings(bootstrap=bootstrap)
    Settings(bootstrap=bootstrap, kafka_plaintext_allowed=True)
    Settings(bootstrap=bootstrap, kafka_security="ssl")


@pytest.mark.parametrize("bootstrap", ["127.0.0.1:9092", "localhost:9092", "[::1]:9092"])
def test_brokers_on_this_machine_may_be_reached_in_the_clear(bootstrap: str) -> None:
    assert Settings(bootstrap=bootstrap).brokers.options["security_protocol"] == "PLAINTEXT"


@pytest.mark.parametrize(
    "given",
    [
        {"kafka_security": "sasl_ssl"},
        {"kafka_security": "sasl_ssl", "kafka_user": "u"},
        {"kafka_user": "u", "kafka_password": "p"},
        {"kafka_security": "ssl", "kafka_cert_file": "c.pem"},
        {"kafka_security": "ssl", "kafka_ca_file": "missing.pem"},
    ],
)
def test_half_a_way_to_kafka_is_a_mistake(given: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="kafka_"):
        Settings.model_validate(given)


def test_a_secret_may_come_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text("pass word \n")
    monkeypatch.setenv("RATER_KAFKA_PASSWORD_FILE", str(tmp_path / "secret"))
    settings = Settings(kafka_security="sasl_plaintext", kafka_user="u")
    assert settings.kafka_password is not None
    assert settings.kafka_password.get_secret_value() == "pass word "


def test_a_secret_given_twice_or_in_a_file_that_is_not_there_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATER_HTTP_TOKEN_FILE", "/nowhere")
    with pytest.raises(FileNotFoundError, match="RATER_HTTP_TOKEN_FILE"):
        Settings()
    monkeypatch.setenv("RATER_HTTP_TOKEN", "correct-horse-battery")
    with pytest.raises(FileNotFoundError, match="both"):
        Settings()


def test_a_wrong_secret_is_not_repeated_by_the_error() -> None:
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate({"http_token": "tooshort"})
    assert "tooshort" not in str(caught.value)
