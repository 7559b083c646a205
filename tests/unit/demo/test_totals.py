"""The lines and totals the demo derives from output records."""

import pytest

from rater.demo.totals import Totals
from tests.builders import ORG, TOPICS, Desk


class Show:
    """An account to send commands to, and the demo's lines about its outputs."""

    def __init__(self) -> None:
        self.desk = Desk()
        self.totals = Totals(TOPICS)
        self._taken = 0

    def lines(self) -> list[str]:
        self.desk.outputs += self.desk.simulation.finish()
        new, self._taken = self.desk.outputs[self._taken :], len(self.desk.outputs)
        return [line for record in new for line in self.totals.take(record, record.timestamp)]


@pytest.fixture
def show() -> Show:
    show = Show()
    show.desk.ready("10.00")
    show.desk.rate("20.00")
    assert not any("service" in line for line in show.lines()), "an organization's first funds don't restore its service"
    return show


def test_service_suspended_at_zero_and_restored_by_funds_is_shown_and_counted(show: Show) -> None:
    show.desk.call()
    assert ["service suspended" in line for line in show.lines()].count(True) == 1
    show.desk.call("another")
    assert not any("service" in line for line in show.lines())
    show.desk.funds("100.00")
    assert ["service restored" in line for line in show.lines()].count(True) == 1
    assert (show.totals.suspensions[ORG], show.totals.restorations[ORG]) == (1, 1)


def test_a_recharge_is_pending_until_it_is_answered(show: Show) -> None:
    auto = {"trigger_amount": "50.00", "recharge_amount": "60.00", "payment_method": "card"}
    show.desk.command("auto_recharge.put", enabled=True, **auto)
    show.lines()
    assert show.totals.recharging() == [ORG]
    show.desk.command("recharge.failed", recharge_id=f"{ORG}:1", code="declined", retryable=True)
    show.lines()
    assert show.totals.recharging() == [], "the next attempt is an hour away, so none is pending"
    show.desk.later(1)
    show.desk.command("recharge.retry", recharge_id=f"{ORG}:1", attempt=2)
    show.lines()
    assert show.totals.recharging() == [ORG]
    show.desk.command("recharge.succeeded", recharge_id=f"{ORG}:1", amount="60.00", payment_reference="p")
    show.lines()
    assert show.totals.recharging() == []
