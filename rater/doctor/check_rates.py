"""Rates as they will stand: which run out, which are at odds. Pure: rows in, findings out.

Which row prices a call is rule 8: of a rate card, service and currency the longest prefix among the rows valid at the instant
of answer, and of equal ones the later `effective_from`. So rows are looked at by card, service, currency and prefix, and where
the last of a prefix runs out, a shorter prefix may go on pricing its calls. The number type has no say in it.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from rater.doctor.findings import DoctorFinding, counted, fault, listed, note, ok, warning
from rater.domain import moments
from rater.domain.deck import PricedRow

SOON_DAYS = 30
_SOON_US = SOON_DAYS * 86_400 * 1_000_000
_LOAD = "rater load rates FILE.csv"

Table = tuple[str, str, str]  # rate card, service, currency
Prefixes = Mapping[str, Sequence[PricedRow]]


def judge_rates(rows: Iterable[PricedRow], now_us: int) -> list[DoctorFinding]:
    """Everything there is to say of the rows, at the instant `now_us`."""
    tables = by_table(rows)
    if not tables:
        return [warning("catalog.no_rates", "there are no rates: every call that costs becomes a dead letter, no_rate", _LOAD)]
    findings: list[DoctorFinding] = []
    for table, prefixes in sorted(tables.items()):
        until_us = {prefix: priced_until(found, now_us) for prefix, found in prefixes.items()}
        findings += _validity(table, prefixes, until_us, now_us)
    findings += _ambiguous(tables)
    findings += _overlaps(tables, now_us)
    count = sum(len(found) for prefixes in tables.values() for found in prefixes.values())
    cards = sorted({card for card, _, _ in tables})
    return [
        ok("catalog.rates", f"{counted(count, 'rate')} of {counted(len(cards), 'rate card')} ({listed(cards)})"),
        *findings,
    ]


def by_table(rows: Iterable[PricedRow]) -> dict[Table, dict[str, list[PricedRow]]]:
    """Rows by card, service and currency, then by prefix."""
    tables: dict[Table, dict[str, list[PricedRow]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        tables[row.rate_card, row.service, row.currency][row.prefix].append(row)
    return tables


def priced_until(rows: Iterable[PricedRow], now_us: int) -> int | None:
    """Until when the rows price without a gap from now on; None: not now."""
    until_us = None
    for row in sorted(rows, key=lambda row: row.from_us):
        reached_us = now_us if until_us is None else until_us
        if row.from_us <= reached_us < row.to_us:
            until_us = row.to_us
    return until_us


def _validity(table: Table, prefixes: Prefixes, until_us: Mapping[str, int | None], now_us: int) -> Iterable[DoctorFinding]:
    name = named(table)
    over = [p for p, until in until_us.items() if until is None and all(row.to_us <= now_us for row in prefixes[p])]
    if len(over) == len(prefixes):
        what = f"{name}: every rate has expired: calls become dead letters, no_rate"
        yield warning("catalog.card_expired", what, f"{_LOAD}, then rater replay")
        return
    bare = [prefix for prefix in over if not _falls_back(prefix, until_us, now_us)]
    if bare:
        what = f"{name}: expired, and no shorter prefix takes over: {_shown(bare, prefixes)}"
        yield warning("catalog.rates_expired", what, f"{_LOAD}, then rater replay")
    covered = len(over) - len(bare)
    if covered:
        yield note(
            "catalog.rates_fall_back", f"{name}: prefixes that expired, whose calls shorter ones price (rule 8): {covered}"
        )
    soon = {p: until for p, until in until_us.items() if until is not None and until <= now_us + _SOON_US}
    bare = sorted((p for p, until in soon.items() if not _falls_back(p, until_us, until)), key=lambda p: (soon[p], p))
    if bare:
        first = moments.to_text(soon[bare[0]])
        what = f"{name}: expire within {SOON_DAYS} days with no successor, the first at {first}: {_shown(bare, prefixes)}"
        yield warning("catalog.rates_expire", what, f"{_LOAD} with rows whose effective_from is that instant at the latest")
    if len(soon) > len(bare):
        number = len(soon) - len(bare)
        what = f"{name}: prefixes that shorter ones price (rule 8) once they expire within {SOON_DAYS} days: {number}"
        yield note("catalog.rates_will_fall_back", what)


def _falls_back(prefix: str, until_us: Mapping[str, int | None], at_us: int) -> bool:
    """Whether a shorter prefix prices calls at the instant this one no longer does."""
    shorter = (until_us.get(prefix[:length]) for length in range(1, len(prefix)))
    return any(until is not None and until > at_us for until in shorter)


def _ambiguous(tables: Mapping[Table, Prefixes]) -> Iterable[DoctorFinding]:
    pairs = []
    for table, prefixes in sorted(tables.items()):
        for prefix, rows in prefixes.items():
            ordered = sorted(rows, key=lambda row: (row.from_us, row.rate_id))
            pairs += [
                f"{one.rate_id} and {other.rate_id} ({named(table)}, {prefix})"
                for one, other in pairwise(ordered)
                if one.from_us == other.from_us and one.to_us > one.from_us and other.to_us > other.from_us
            ]
    if pairs:
        what = f"alike in all that rule 8 goes by, effective_from too; the lower rate_id wins: {listed(pairs)}"
        yield fault("catalog.rates_ambiguous", what, "remove one of each: publish its key to the rate topic with a null value")


def _overlaps(tables: Mapping[Table, Prefixes], now_us: int) -> Iterable[DoctorFinding]:
    pairs = []
    for table, prefixes in sorted(tables.items()):
        for prefix, rows in prefixes.items():
            ordered = sorted((row for row in rows if row.to_us > now_us), key=lambda row: row.from_us)
            pairs += [
                f"{later.rate_id} over {earlier.rate_id} ({named(table)}, {prefix})"
                for earlier, later in pairwise(ordered)
                if earlier.from_us < later.from_us < earlier.to_us
            ]
    if pairs:
        overlaps = counted(len(pairs), "overlap")
        what = f"{overlaps}; the later effective_from wins while both are valid (rule 8): {listed(pairs)}"
        yield note("catalog.rates_overlap", what, "nothing, if meant; else give the earlier an effective_to")


def named(table: Table) -> str:
    """A card, service and currency as text."""
    card, service, currency = table
    return f"{card} {service} {currency}"


def _shown(prefixes: Sequence[str], rows: Prefixes) -> str:
    return listed([f"{prefix} {rows[prefix][0].destination}" for prefix in prefixes])
