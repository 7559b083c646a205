"""What the demo says of the records it sees."""

import pytest

from rater.demo.totals import Totals
from tests.builders import ORG, TOPICS, Desk


class Show:
    """A desk and the lines its outputs are worth."""

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
    assert not any("service" in line for line in show.lines()), "an organization's first funds are no return"
    return show


def test_service_suspended_at_zero_and_restored_by_funds_is_shown_and_counted(show: Show) -> None:
    show.desk.call()
    assert ["service suspended" in line for line in show.lines()].count(True) == 1
    show.desk.call("another")
    assert not any("service" in line for line in show.lines())
    show.desk.funds("100.00")
    assert ["service returns" in line for line in show.lines()].count(True) == 1
    assert (show.totals.suspensions[ORG], show.totals.returns[ORG]) == (1, 1)


def test_a_recharge_is_pending_until_it_is_answered(show: Show) -> None:
    auto = {"trigger_amount": "50.00", "recharge_amount": "60.00", "payment_method": "card"}
    show.desk.command("auto_recharge.put", enabled=True, **auto)
    show.lines()
    assert show.totals.recharging() == [ORG]
    show.desk.command("recharge.failed", recharge_id=f"{ORG}:1", code="declined", retryable=True)
    show.lines()
    assert show.totals.recharging() == [], "an hour from now is not under way"
    show.desk.later(1)
    show.desk.command("recharge.retry", recharge_id=f"{ORG}:1", attempt=2)
    show.lines()
    assert show.totals.recharging() == [ORG]
    show.desk.command("recharge.succeeded", recharge_id=f"{ORG}:1", amount="60.00", payment_reference="p")
    show.lines()
    assert show.totals.recharging() == []
