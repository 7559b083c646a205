"""What holds for any log, checked with random logs; and arithmetic, checked against independent sums of random numbers."""

import random
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import pairwise

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from rater.audit import Books, audit
from rater.catalog import DeckDefaults, check_rates
from rater.domain import moments
from rater.domain.catalog import Catalog
from rater.domain.dead_letters import OFFSET_HEADER, reason_of
from rater.domain.money import AMOUNT_MICROS_MAX, billed_seconds, format_micros, parse_micros, price_micros
from rater.kafka.log import LogRecord
from rater.kafka.topics import load_topics
from rater.resources import sample_rate_deck
from rater.simulation import Simulation, simulate
from tests.system.random_log import RandomLog

TOPICS = load_topics()
SEEDS = st.integers(0, 2**32)


def log_of(seed: int, cdrs: int = 150, organizations: int = 3) -> list[LogRecord]:
    log = RandomLog(TOPICS, seed, cdrs, organizations)
    return [*log.catalog, *log.traffic]


def latest_states(records: Sequence[LogRecord]) -> dict[bytes | None, bytes | None]:
    return {record.key: record.value for record in records if record.topic == TOPICS.state}


@settings(max_examples=40)
@given(SEEDS)
def test_money_is_conserved_whatever_the_log(seed: int) -> None:
    assert audit(Books.of(TOPICS, simulate(TOPICS, log_of(seed)))) == []


@settings(max_examples=40)
@given(SEEDS)
def test_every_cdr_is_rated_or_dead_lettered_or_a_duplicate(seed: int) -> None:
    simulation = Simulation(TOPICS)
    log = log_of(seed)
    out = simulation.rate(log)
    cdrs = sum(record.topic == TOPICS.cdr for record in log)
    rated = sum(record.topic == TOPICS.rated for record in out)
    dead = sum(reason_of(r.headers).topic == TOPICS.cdr for r in out)
    assert rated + dead + simulation.core.take_counts().get(("duplicates", "call"), 0) == cdrs


@settings(max_examples=25)
@given(SEEDS, st.floats(0, 1))
def test_replaying_any_prefix_again_changes_no_account(seed: int, share: float) -> None:
    log = log_of(seed)
    # A call that a replay would rate (as its user came later) is not a repeat: such records are left out.
    simulation = Simulation(TOPICS)
    kept = [r for r in log if not any(out.topic == TOPICS.dead_letter for out in simulation.rate([r]))]
    once = latest_states(list(simulate(TOPICS, kept)))
    twice = latest_states(list(simulate(TOPICS, [*kept, *kept[: int(len(kept) * share)]])))
    assert once == twice


@settings(max_examples=25)
@given(SEEDS)
def test_splitting_a_log_by_organization_gives_the_same_accounts_and_records(seed: int) -> None:
    log = log_of(seed)
    catalog = [record for record in log if record.topic in (TOPICS.plan, TOPICS.rate)]
    split: dict[bytes | None, list[LogRecord]] = defaultdict(list)
    for record in log:
        if record not in catalog:
            split[record.key].append(record)
    together: dict[bytes | None, list[LogRecord]] = defaultdict(list)
    for record in simulate(TOPICS, log):
        together[record.key].append(record)
    for key, records in split.items():
        alone = list(simulate(TOPICS, [*catalog, *records]))
        assert [_without_offset(r) for r in alone] == [_without_offset(r) for r in together.get(key, [])]


@settings(max_examples=25)
@given(SEEDS, st.lists(st.integers(0, 400), max_size=20))
def test_the_same_log_gives_the_same_bytes_however_it_is_cut_into_batches(seed: int, cuts: list[int]) -> None:
    log = log_of(seed)
    whole = list(simulate(TOPICS, log))
    simulation = Simulation(TOPICS)
    out = []
    for start, end in pairwise([0, *sorted(cuts), len(log)]):
        out += simulation.rate(log[start:end])
    assert out + simulation.finish() == whole


@settings(max_examples=300)
@given(
    st.sampled_from(["cdr", "command", "plan", "rate"]),
    st.one_of(
        st.binary(max_size=60),
        st.recursive(st.none() | st.integers() | st.text(), lambda c: st.lists(c)).map(msgspec.json.encode),
    ),
    st.one_of(st.none(), st.binary(max_size=8)),
    st.integers(-(2**63), 2**63 - 1),
)
def test_any_bytes_on_any_topic_are_accounted_for(topic: str, value: bytes, key: bytes | None, timestamp_ms: int) -> None:
    out = Simulation(TOPICS).rate([LogRecord(getattr(TOPICS, topic), timestamp_ms, key, value)])
    assert [record.topic for record in out] == [TOPICS.dead_letter]
    assert out[0].value == value


def _without_offset(record: LogRecord) -> tuple[object, ...]:
    headers = tuple(h for h in record.headers if h[0] != OFFSET_HEADER)
    return record.topic, record.timestamp, record.key, record.value, headers


PRICES = [
    (row["prefix"], row["rate_per_minute"]) for _, row in check_rates(sample_rate_deck().open(newline=""), DeckDefaults()).rows
]


@settings(max_examples=12)
@given(SEEDS)
def test_the_prefix_look_up_equals_a_search_of_the_whole_real_deck(seed: int) -> None:
    draw = random.Random(seed)
    start = datetime(2025, 1, 1, tzinfo=UTC)
    rows = []
    catalog = Catalog()
    for i, (prefix, price) in enumerate(PRICES):
        begins = start + timedelta(days=draw.randrange(300))
        ends = begins + timedelta(days=draw.randrange(1, 300)) if draw.randrange(2) else None
        row = {"rate_id": f"r{i:05}", "service": "outbound", "prefix": prefix, "destination": "d", "country": "US"}
        row |= {"currency": "USD", "rate_per_minute": price, "effective_from": begins.isoformat()}
        if ends is not None:
            row["effective_to"] = ends.isoformat()
        catalog.put_rate(row["rate_id"].encode(), msgspec.json.encode(row))
        rows.append((prefix, moments.to_us(begins), moments.to_us(ends) if ends else 2**63, row["rate_id"]))
    table = catalog.deck.table("default", "outbound", "USD")
    for _ in range(40):
        prefix = draw.choice(PRICES)[0]
        number = (prefix + str(draw.randrange(10**9)))[: draw.randrange(1, 16)]
        at_us = moments.to_us(start + timedelta(days=draw.randrange(700)))
        holding = [r for r in rows if number.startswith(r[0]) and r[1] <= at_us < r[2]]
        wanted = min(holding, key=lambda r: (-len(r[0]), -r[1], r[3]), default=None)
        found = table.find(number, at_us)
        assert (None if found is None else found.rate_id) == (None if wanted is None else wanted[3])


@given(st.integers(0, 10**9), st.integers(0, 10**7), st.integers(0, 10**9), st.integers(0, 10**9))
def test_a_price_is_the_exact_one_rounded_half_up_once(rate: int, seconds: int, fee: int, minimum: int) -> None:
    exact = fee + Fraction(rate * seconds, 60)
    rounded = price_micros(rate, seconds, fee, 0)
    assert -Fraction(1, 2) < rounded - exact <= Fraction(1, 2)
    assert price_micros(rate, seconds, fee, minimum) == max(minimum, rounded)


@given(st.integers(1, 10**9), st.integers(0, 600), st.integers(1, 600))
def test_billed_seconds_are_the_fewest_increments_that_hold_the_call(
    duration_ms: int, initial_s: int, increment_s: int
) -> None:
    billed_s = billed_seconds(duration_ms, initial_s, increment_s)
    assert billed_s * 1000 >= duration_ms or billed_s == initial_s
    assert (billed_s - initial_s) % increment_s == 0
    assert billed_s == initial_s or (billed_s - increment_s) * 1000 < duration_ms


@given(st.integers(-AMOUNT_MICROS_MAX, AMOUNT_MICROS_MAX), st.sampled_from([0, 2, 3]))
def test_an_amount_reads_back_as_it_was_written(micros: int, digits: int) -> None:
    text = format_micros(micros, digits)
    assert parse_micros(text) == micros
    fraction = text.partition(".")[2]
    assert digits <= len(fraction) <= 6
    assert len(fraction) == digits or not fraction.endswith("0")
