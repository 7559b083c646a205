"""Rates: which have expired or will soon, and which conflict. Pure: rows in, findings out.

Rule 8 says which row prices a call: among the rows of the rate card, service and currency that are valid when the call is
answered, the one with the longest prefix, and among equal prefixes the one with the later `effective_from`. So rows are grouped
by card, service, currency and prefix. When the last row of a prefix expires, a shorter prefix may price its calls. The number
type doesn't matter.
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

RateTable = tuple[str, str, str]  # rate card, service, currency
Prefixes = Mapping[str, Sequence[PricedRow]]


def judge_rates(rows: Iterable[PricedRow], now_us: int) -> list[DoctorFinding]:
    """All findings about these rows as of `now_us`."""
    tables = by_table(rows)
    if not tables:
        return [warning("catalog.no_rates", "there are no rates: every chargeable call becomes a dead letter (no_rate)", _LOAD)]
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


def by_table(rows: Iterable[PricedRow]) -> dict[RateTable, dict[str, list[PricedRow]]]:
    """Rate table → prefix → its rows."""
    tables: dict[RateTable, dict[str, list[PricedRow]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        tables[row.rate_card, row.service, row.currency][row.prefix].append(row)
    return tables


def priced_until(rows: Iterable[PricedRow], now_us: int) -> int | None:
    """Until when the rows price calls without a gap, starting now; None if none is valid now."""
    until_us = None
    for row in sorted(rows, key=lambda row: row.from_us):
        reached_us = now_us if until_us is None else until_us
        if row.from_us <= reached_us < row.to_us:
            until_us = row.to_us
    return until_us


def _validity(table: RateTable, prefixes: Prefixes, until_us: Mapping[str, int | None], now_us: int) -> Iterable[DoctorFinding]:
    name = named(table)
    expired = [p for p, until in until_us.items() if until is None and all(row.to_us <= now_us for row in prefixes[p])]
    if len(expired) == len(prefixes):
        what = f"{name}: all rates have expired, so calls become dead letters (no_rate)"
        yield warning("catalog.card_expired", what, f"{_LOAD}, then rater replay")
        return
    uncovered = [prefix for prefix in expired if not _falls_back(prefix, until_us, now_us)]
    if uncovered:
        what = f"{name}: expired, and no shorter prefix replaces them: {_shown(uncovered, prefixes)}"
        yield warning("catalog.rates_expired", what, f"{_LOAD}, then rater replay")
    covered = len(expired) - len(uncovered)
    if covered:
        yield note(
            "catalog.rates_fall_back", f"{name}: expired prefixes whose calls shorter prefixes price (rule 8): {covered}"
        )
    soon = {p: until for p, until in until_us.items() if until is not None and until <= now_us + _SOON_US}
    uncovered = sorted((p for p, until in soon.items() if not _falls_back(p, until_us, until)), key=lambda p: (soon[p], p))
    if uncovered:
        first = moments.to_text(soon[uncovered[0]])
        what = (
            f"{name}: expire within {SOON_DAYS} days without a successor, the first at {first}: {_shown(uncovered, prefixes)}"
        )
        yield warning("catalog.rates_expire", what, f"{_LOAD} with rows whose effective_from is not later than that")
    if len(soon) > len(uncovered):
        number = len(soon) - len(uncovered)
        what = f"{name}: prefixes that expire within {SOON_DAYS} days and are then priced by shorter ones (rule 8): {number}"
        yield note("catalog.rates_will_fall_back", what)


def _falls_back(prefix: str, until_us: Mapping[str, int | None], at_us: int) -> bool:
    """Whether a shorter prefix prices this one's calls from `at_us` on."""
    shorter = (until_us.get(prefix[:length]) for length in range(1, len(prefix)))
    return any(until is not None and until > at_us for until in shorter)


def _ambiguous(tables: Mapping[RateTable, Prefixes]) -> Iterable[DoctorFinding]:
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
        what = f"rule 8 can't tell these apart, not even by effective_from; the lower rate_id wins: {listed(pairs)}"
        yield fault(
            "catalog.rates_ambiguous", what, "remove one of each pair: publish its key with a null value to the rate topic"
        )


def _overlaps(tables: Mapping[RateTable, Prefixes], now_us: int) -> Iterable[DoctorFinding]:
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
        what = f"{overlaps}; while both are valid the later effective_from wins (rule 8): {listed(pairs)}"
        yield note("catalog.rates_overlap", what, "fine if intended; else give the earlier rate an effective_to")


def named(table: RateTable) -> str:
    """A rate table as text: card, service, currency."""
    card, service, currency = table
    return f"{card} {service} {currency}"


def _shown(prefixes: Sequence[str], rows: Prefixes) -> str:
    return listed([f"{prefix} {rows[prefix][0].destination}" for prefix in prefixes])
