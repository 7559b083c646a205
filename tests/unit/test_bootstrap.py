"""Which agents a worker runs."""

from pydantic import SecretStr

from rater.bootstrap import AGENTS, configured, lacking
from rater.settings import Settings


def test_what_needs_nothing_set_up_runs_unless_told_otherwise() -> None:
    assert configured(Settings()) == ["rating", "timer"]


def test_an_agent_that_is_set_up_lacks_nothing() -> None:
    settings = Settings()
    assert set(lacking(settings, AGENTS)) == set(AGENTS) - set(configured(settings))


def test_recharge_runs_once_a_gateway_is_set() -> None:
    assert "recharge" in configured(Settings(payment_gateway="stripe", stripe_api_key=SecretStr("sk_test_1")))


def test_notification_runs_once_there_is_a_way_to_tell_anybody() -> None:
    assert "notification" in configured(Settings(mail_host="127.0.0.1", mail_from="credit@rater.example"))
    secret = SecretStr("whsec_" + "a" * 32)
    assert "notification" in configured(Settings(notify_webhook_url="https://x.example/n", notify_webhook_secret=secret))
