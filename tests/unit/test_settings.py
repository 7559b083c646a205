"""Settings from the environment and from a file."""

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
