"""Which agents a worker runs."""

from pydantic import SecretStr

from rater.bootstrap import AGENTS, lacking, set_up
from rater.settings import Settings


def test_what_needs_nothing_set_up_runs_unless_told_otherwise() -> None:
    assert set_up(Settings()) == ["rating", "timer"]


def test_an_agent_that_is_set_up_lacks_nothing() -> None:
    settings = Settings()
    assert set(lacking(settings, AGENTS)) == set(AGENTS) - set(set_up(settings))


def test_recharge_runs_once_a_gateway_is_set() -> None:
    assert "recharge" in set_up(Settings(payment_gateway="stripe", stripe_api_key=SecretStr("sk_test_1")))


def test_notification_runs_once_there_is_a_way_to_tell_anybody() -> None:
    assert "notification" in set_up(Settings(mail_host="127.0.0.1", mail_from="credit@rater.example"))
    secret = SecretStr("whsec_" + "a" * 32)
    assert "notification" in set_up(Settings(notify_webhook_url="https://x.example/n", notify_webhook_secret=secret))
