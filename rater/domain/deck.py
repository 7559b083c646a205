"""Rate decks: which row prices a call (rule 8).

A deck holds rows by (rate card, service, currency) and prefix. `find` takes the longest prefix of the called number among
the rows valid at the instant of answer; of two rows with the same prefix the later `effective_from` wins, then the lower
`rate_id`, so that the answer depends on which rows there are and never on the order they came in.
"""

from dataclasses import dataclass
from typing import Final

from rater.domain import messages, moments, money
from rater.domain.currencies import CURRENCY_DIGITS

FOREVER_US: Final = 2**63
HEAD_DIGITS: Final = 3


@dataclass(frozen=True)
class PricedRow:
    """A row ready to rate with: micros a minute, seconds, microseconds since the epoch, and the texts a rated call shows."""

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
    """A catalog message as a row to rate with."""
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
        # By the first digits: the lengths of the prefixes that begin so, longest first. Spares most of the probes.
        self._lengths: dict[str, tuple[int, ...]] = {}

    def find(self, digits: str, at_us: int) -> PricedRow | None:
        """The row for a called number (E.164 without +) answered at the instant, or None (rule 8)."""
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
        """Take a row in, in its order among those of its prefix."""
        candidates = self._rows.setdefault(row.prefix, [])
        candidates.append(row)
        candidates.sort(key=lambda r: (-r.from_us, r.rate_id))
        self._measure(row.prefix)

    def remove(self, row: PricedRow) -> None:
        """Take a row out."""
        candidates = self._rows[row.prefix]
        candidates.remove(row)
        if not candidates:
            del self._rows[row.prefix]

    def _measure(self, prefix: str) -> None:
        """Note the prefix's length at every head it may be found by; lengths are not forgotten, they cost a probe."""
        lengths = self._lengths
        first, head = prefix[:1], prefix[:HEAD_DIGITS]
        short = len(prefix) < HEAD_DIGITS
        known = [key for key in lengths if key.startswith(prefix)] if short else []
        for key in {first, head, *known}:
            # A head that is new begins with what the shorter prefixes of its first digit need.
            inherited = lengths.get(key) or tuple(n for n in lengths.get(first, ()) if n < HEAD_DIGITS)
            if len(prefix) not in inherited:
                inherited = tuple(sorted({*inherited, len(prefix)}, reverse=True))
            lengths[key] = inherited

    def rows(self) -> list[PricedRow]:
        """All rows, for those who check or show a deck."""
        return [row for candidates in self._rows.values() for row in candidates]


class Deck:
    """All rate cards."""

    __slots__ = ("_by_id", "_tables")

    def __init__(self) -> None:
        self._by_id: dict[str, PricedRow] = {}
        self._tables: dict[tuple[str, str, str], PrefixTable] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def put(self, row: PricedRow) -> None:
        """Take a row in; one with its id is replaced."""
        self.remove(row.rate_id)
        self._by_id[row.rate_id] = row
        self.table(row.rate_card, row.service, row.currency).add(row)

    def remove(self, rate_id: str) -> None:
        """Take a row out, if it is there."""
        row = self._by_id.pop(rate_id, None)
        if row is not None:
            self.table(row.rate_card, row.service, row.currency).remove(row)

    def table(self, rate_card: str, service: str, currency: str) -> PrefixTable:
        """The rows of a card, service and currency; the same object for as long as the deck lives."""
        key = (rate_card, service, currency)
        table = self._tables.get(key)
        if table is None:
            table = self._tables[key] = PrefixTable()
        return table

    def rows(self) -> list[PricedRow]:
        """All rows."""
        return list(self._by_id.values())
