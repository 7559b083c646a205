"""The catalog: plans and rates as operators publish them, keyed rows of which a null takes one away.

So does a row that can't be used: of each key the topic keeps the latest alone, so the catalog is made of the latest alone.
"""

from rater.domain import deck, plans, reading
from rater.domain.rejection import Rejected


class Catalog:
    """All plans and rate decks. `put_plan` and `put_rate` take catalog records as they come and raise `Rejected`."""

    __slots__ = ("deck", "plans")

    def __init__(self) -> None:
        self.deck = deck.Deck()
        self.plans: dict[str, plans.PreparedPlan] = {}

    def put_plan(self, key: bytes | None, value: bytes | None) -> None:
        """A record of the plan topic."""
        plan_id = _key(key)
        self.plans.pop(plan_id, None)
        if value is None:
            return
        message = reading.read_plan(value)
        if message.plan_id != plan_id:
            raise Rejected("invalid_field", "plan_id: not the record's key")
        self.plans[plan_id] = plans.prepare_plan(message)

    def put_rate(self, key: bytes | None, value: bytes | None) -> None:
        """A record of the rate topic."""
        rate_id = _key(key)
        self.deck.remove(rate_id)
        if value is None:
            return
        message = reading.read_rate(value)
        if message.rate_id != rate_id:
            raise Rejected("invalid_field", "rate_id: not the record's key")
        self.deck.put(deck.priced(message))


def _key(key: bytes | None) -> str:
    try:
        return (key or b"").decode()
    except UnicodeDecodeError:
        raise Rejected("invalid_field", "the record's key is not UTF-8") from None
