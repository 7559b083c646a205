"""Whatever the bytes, the core doesn't raise, and every record is accounted for."""

from hypothesis import given, settings
from hypothesis import strategies as st

from rater.audit import Books, audit
from rater.domain.dead_letters import reason_of
from rater.domain.rejection import RETRYABLE
from rater.kafka.log import LogRecord, LogWriter
from rater.kafka.topics import load_topics
from rater.simulation import Simulation
from tests.builders import START_MS
from tests.poison import Poison

TOPICS = load_topics()
SEEDS = st.integers(0, 2**32)
CODES = RETRYABLE | {
    "malformed_json",
    "too_large",
    "too_deep",
    "invalid_field",
    "bad_number",
    "conflicting_duplicate",
    "period_closed",
}


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_every_bad_record_is_accounted_for_and_the_books_still_balance(seed: int) -> None:
    simulation = Simulation(TOPICS)
    poison = Poison(TOPICS, seed, START_MS)
    out = simulation.rate(list(poison.stage()))
    for _ in range(60):
        record = poison.record()
        out += account_for(simulation, record)
    out += simulation.finish()
    assert audit(Books.of(TOPICS, out)) == []
    writer = LogWriter()
    assert all(writer.line(record).count(b"\n") == 1 for record in out)


def account_for(simulation: Simulation, record: LogRecord) -> list[LogRecord]:
    """Rate one record, and check that it had exactly one of the outcomes possible for its topic."""
    simulation.core.take_counts()
    out = simulation.rate([record])
    happened = simulation.core.take_counts()
    dead = [letter for letter in out if letter.topic == TOPICS.dead_letter]
    if dead:
        assert out == dead
        assert len(dead) == 1
        check_dead_letter(record, dead[0])
        assert happened == {("dead_letters", reason_of(dead[0].headers).code): 1}
    elif record.topic == TOPICS.cdr:
        rated = sum(letter.topic == TOPICS.rated for letter in out)
        assert rated + happened.get(("duplicates", "call"), 0) == 1
    elif record.topic == TOPICS.command:
        assert [count for (what, *_), count in happened.items() if what in ("commands", "duplicates")] == [1]
    else:
        assert out == []
    return out


def check_dead_letter(record: LogRecord, letter: LogRecord) -> None:
    assert (letter.key, letter.value) == (record.key, record.value)
    own = len(record.headers)
    assert list(letter.headers[:own]) == list(record.headers)
    reason = reason_of(letter.headers[own:])
    assert (reason.topic, reason.partition, reason.offset) == (record.topic, record.partition, record.offset)
    assert reason.message
    assert reason.code in CODES
    assert reason.retryable == (reason.code in RETRYABLE)
