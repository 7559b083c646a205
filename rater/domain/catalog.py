"""The catalog: plans and rates, and how their records are taken in.

Operators publish a row under its key; a null value removes it. An invalid row also removes the previous row with the same key.
The topics are compacted, so a worker that starts later never sees the previous row, and all workers must price alike.
"""

from typing import NamedTuple

from rater.domain import deck, plans, reading
from rater.domain.outputs import Record
from rater.domain.rejection import Rejected


class Catalog:
    """The plans and rates in force."""

    __slots__ = ("deck", "plans")

    def __init__(self) -> None:
        self.deck = deck.Deck()
        self.plans: dict[str, plans.PreparedPlan] = {}

    def put_plan(self, key: bytes | None, value: bytes | None) -> None:
        """Replace or remove a plan by its record's key and value. Raises `Rejected`; the plan is then removed."""
        plan_id = _text(key)
        self.plans.pop(plan_id, None)
        if value is None:
            return
        message = reading.read_plan(value)
        if message.plan_id != plan_id:
            raise Rejected("invalid_field", "plan_id: not the record's key")
        self.plans[plan_id] = plans.prepare_plan(message)

    def put_rate(self, key: bytes | None, value: bytes | None) -> None:
        """Replace or remove a rate by its record's key and value. Raises `Rejected`; the rate is then removed."""
        rate_id = _text(key)
        self.deck.remove(rate_id)
        if value is None:
            return
        message = reading.read_rate(value)
        if message.rate_id != rate_id:
            raise Rejected("invalid_field", "rate_id: not the record's key")
        self.deck.put(deck.priced(message))


class FaultyRow(NamedTuple):
    """A catalog record that is left out, and why."""

    record: Record
    rejected: Rejected


class CatalogIntake:
    """Takes records of the plan and rate topics into a catalog.

    `faulty` has the rows that are left out now, by topic and key: the next record with that key replaces or removes it.
    """

    __slots__ = ("_plan_topic", "_rate_topic", "catalog", "faulty")

    def __init__(self, plan_topic: str, rate_topic: str, catalog: Catalog) -> None:
        self._plan_topic = plan_topic
        self._rate_topic = rate_topic
        self.catalog = catalog
        self.faulty: dict[tuple[str, bytes | None], FaultyRow] = {}

    def take(self, record: Record) -> Rejected | None:
        """Take a record in; returns why it is faulty, or None. Raises `ValueError` if it is of another topic."""
        topic, key = record.topic, record.key
        self.faulty.pop((topic, key), None)
        try:
            if topic == self._plan_topic:
                self.catalog.put_plan(key, record.value)
            elif topic == self._rate_topic:
                self.catalog.put_rate(key, record.value)
            else:
                raise ValueError(f"the rater does not read topic {topic!r}")
        except Rejected as rejected:
            self.faulty[topic, key] = FaultyRow(record, rejected)
            return rejected
        return None


def _text(key: bytes | None) -> str:
    try:
        return (key or b"").decode()
    except UnicodeDecodeError:
        raise Rejected("invalid_field", "the record's key is not UTF-8") from None
