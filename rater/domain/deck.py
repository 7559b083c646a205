"""Rate decks: which row prices a call (rule 8).

A deck holds rows by rate card, service, currency and prefix. Among the rows valid at the instant of answer, the longest prefix
of the called number wins. If two rows have the same prefix, the later `effective_from` wins, then the lower `rate_id`. So the
answer depends on which rows there are, and never on the order they came in.
"""

from dataclasses import dataclass
from typing import Final

from rater.domain import messages, moments, money
from rater.domain.currencies import CURRENCY_DIGITS

FOREVER_US: Final = 2**63
HEAD_DIGITS: Final = 3


@dataclass(frozen=True)
class PricedRow:
    """A rate message, ready to rate with: a rate in micros a minute, and the texts that a rated call shows."""

    rate_id: str
    rate_card: str
    service: str
    prefix: str
    destination: str
    country: str
    number_type: str
    currency: str
    rate_micros: int
    fee_micros: int
    minimum_micros: int
    initial_s: int
    increment_s: int
    from_us: int
    to_us: int
    rate_text: str
    fee_text: str


def priced(rate: messages.Rate) -> PricedRow:
    """Prepare a rate message for rating."""
    digits = CURRENCY_DIGITS[rate.currency]
    rate_micros = money.parse_micros(rate.rate_per_minute)
    fee_micros = money.parse_micros(rate.connection_fee)
    return PricedRow(
        rate.rate_id,
        rate.rate_card,
        rate.service,
        rate.prefix,
        rate.destination,
        rate.country,
        rate.number_type,
        rate.currency,
        rate_micros,
        fee_micros,
        money.parse_micros(rate.minimum_charge) if rate.minimum_charge else 0,
        rate.initial_increment_s,
        rate.increment_s,
        moments.to_us(rate.effective_from),
        moments.to_us(rate.effective_to) if rate.effective_to else FOREVER_US,
        money.format_micros(rate_micros, digits),
        money.format_micros(fee_micros, digits),
    )


class PrefixTable:
    """The rows of one rate card, service and currency."""

    __slots__ = ("_lengths", "_rows")

    def __init__(self) -> None:
        self._rows: dict[str, list[PricedRow]] = {}
        # First digits → the lengths of the prefixes that begin with them, longest first. Saves most of the look-ups.
        self._lengths: dict[str, tuple[int, ...]] = {}

    def find(self, digits: str, at_us: int) -> PricedRow | None:
        """The row for a called number (E.164 without the +) answered at the instant, or None (rule 8)."""
        rows = self._rows
        lengths = self._lengths
        for length in lengths.get(digits[:HEAD_DIGITS]) or lengths.get(digits[:1], ()):
            candidates = rows.get(digits[:length])
            if candidates is not None:
                for row in candidates:
                    if row.from_us <= at_us < row.to_us:
                        return row
        return None

    def add(self, row: PricedRow) -> None:
        """Add a row, in its order among the rows of its prefix."""
        candidates = self._rows.setdefault(row.prefix, [])
        candidates.append(row)
        candidates.sort(key=lambda r: (-r.from_us, r.rate_id))
        self._measure(row.prefix)

    def remove(self, row: PricedRow) -> None:
        """Remove a row that was added."""
        candidates = self._rows[row.prefix]
        candidates.remove(row)
        if not candidates:
            del self._rows[row.prefix]

    def _measure(self, prefix: str) -> None:
        """Note the prefix's length under all first digits it may be found by. Lengths stay: a spare one costs one look-up."""
        lengths = self._lengths
        first, head = prefix[:1], prefix[:HEAD_DIGITS]
        short = len(prefix) < HEAD_DIGITS
        known = [key for key in lengths if key.startswith(prefix)] if short else []
        for key in {first, head, *known}:
            # A new head starts with the lengths of the shorter prefixes that have its first digit.
            inherited = lengths.get(key) or tuple(n for n in lengths.get(first, ()) if n < HEAD_DIGITS)
            if len(prefix) not in inherited:
                inherited = tuple(sorted({*inherited, len(prefix)}, reverse=True))
            lengths[key] = inherited

    def rows(self) -> list[PricedRow]:
        """All rows."""
        return [row for candidates in self._rows.values() for row in candidates]


class Deck:
    """The rows of all rate cards."""

    __slots__ = ("_by_id", "_tables")

    def __init__(self) -> None:
        self._by_id: dict[str, PricedRow] = {}
        self._tables: dict[tuple[str, str, str], PrefixTable] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def put(self, row: PricedRow) -> None:
        """Add a row; it replaces the one with the same id."""
        self.remove(row.rate_id)
        self._by_id[row.rate_id] = row
        self.table(row.rate_card, row.service, row.currency).add(row)

    def remove(self, rate_id: str) -> None:
        """Remove a row, if it is there."""
        row = self._by_id.pop(rate_id, None)
        if row is not None:
            self.table(row.rate_card, row.service, row.currency).remove(row)

    def table(self, rate_card: str, service: str, currency: str) -> PrefixTable:
        """The rows of a card, service and currency. Always the same object, so callers may keep it."""
        key = (rate_card, service, currency)
        table = self._tables.get(key)
        if table is None:
            table = self._tables[key] = PrefixTable()
        return table

    def rows(self) -> list[PricedRow]:
        """All rows."""
        return list(self._by_id.values())
