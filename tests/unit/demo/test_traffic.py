"""The demo's calls, rated by the core."""

from collections import Counter
from pathlib import Path

import msgspec

from rater.catalog import DeckDefaults, check_organizations, check_plans, check_rates
from rater.demo.traffic import Traffic
from rater.domain.counts import Metric
from rater.kafka.log import LogRecord
from rater.kafka.topics import load_topics
from rater.resources import resource
from rater.simulation import Simulation

TOPICS = load_topics()
START_S = 1_790_000_000
COUNT = 6000


def sample(name: str) -> Path:
    return resource("samples", name)


def calls(seed: int, count: int = COUNT) -> list[tuple[str, bytes]]:
    organizations = msgspec.json.decode(sample("organizations.json").read_text())
    return list(Traffic(organizations, seed).calls(count, START_S))


def rated(seed: int) -> tuple[dict[Metric, int], list[LogRecord]]:
    """Rate samples and traffic; returns the core's own counts, and the output."""
    log = []
    for name in ("pstn-rates-2025-10.csv", "rates-illustrative.csv"):
        with sample(name).open(newline="") as lines:
            log += [(TOPICS.rate, key, row) for key, row in check_rates(lines, DeckDefaults()).rows]
    log += [(TOPICS.plan, key, row) for key, row in check_plans(sample("plans.json").read_text()).rows]
    log += [(TOPICS.command, key, row) for key, row in check_organizations(sample("organizations.json").read_text()).rows]
    start_ms = START_S * 1000
    records = [LogRecord(topic, start_ms, key.encode(), msgspec.json.encode(row)) for topic, key, row in log]
    records += [LogRecord(TOPICS.cdr, start_ms + i, key.encode(), value) for i, (key, value) in enumerate(calls(seed))]
    simulation = Simulation(TOPICS)
    out = simulation.rate(records) + simulation.finish()
    return simulation.core.take_counts(), out


def test_the_same_seed_gives_the_same_calls_to_the_byte() -> None:
    assert calls(1) == calls(1)
    assert calls(1) != calls(2)


def test_every_dead_letter_code_and_every_funding_occurs_and_no_command_is_refused() -> None:
    counts, _ = rated(1)
    codes = {"malformed_json", "too_large", "too_deep", "invalid_field", "bad_number", "conflicting_duplicate"}
    codes |= {"period_closed", "unknown_organization", "unknown_user", "no_rate"}
    assert codes <= {metric[1] for metric in counts if metric[0] == "dead_letters"}
    assert {metric[2] for metric in counts if metric[0] == "calls"} == {"free", "included", "mixed", "credit", "unfunded"}
    assert counts["duplicates", "call"]
    assert {metric[0] for metric in counts} >= {"commands", "charged", "collected", "unfunded"}
    assert "refused" not in {metric[0] for metric in counts}


def test_every_call_type_is_rated() -> None:
    _, outputs = rated(1)
    types = Counter(msgspec.json.decode(r.value or b"")["call_type"] for r in outputs if r.topic == TOPICS.rated)
    assert len(types) == 11


def test_the_sample_organizations_run_dry_recharge_and_use_up_their_minutes() -> None:
    _, outputs = rated(1)
    types = {msgspec.json.decode(r.value or b"")["type"] for r in outputs if r.topic == TOPICS.event}
    assert {"balance.low", "balance.depleted", "recharge.requested", "allowance.low", "allowance.exhausted"} <= types
