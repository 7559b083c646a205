"""The schemas say what the code reads and writes."""

from collections import defaultdict

import msgspec
import pytest
from jsonschema import Draft202012Validator

from rater.resources import schemas_dir
from rater.schemas import as_file, schemas
from rater.simulation import simulate
from rater.topics import load_topics
from tests.system.random_log import RandomLog

TOPICS = load_topics()


@pytest.mark.parametrize("name", sorted(schemas()))
def test_a_schema_file_is_what_the_code_says(name: str) -> None:
    assert (schemas_dir() / name).read_bytes() == as_file(schemas()[name]), "run python -m rater.schemas"


@pytest.mark.parametrize("name", sorted(schemas()))
def test_a_schema_is_valid_json_schema(name: str) -> None:
    Draft202012Validator.check_schema(schemas()[name])


def test_every_message_the_rater_writes_fits_its_schema() -> None:
    log = RandomLog(TOPICS, seed=7, cdrs=3000, organizations=5)
    written = schemas()
    validators = {t.name: Draft202012Validator(written[t.schema]) for t in TOPICS.definitions if t.schema is not None}
    seen: dict[str, int] = defaultdict(int)
    for record in simulate(TOPICS, [*log.catalog, *log.traffic]):
        if record.topic != TOPICS.dead_letter:
            validators[record.topic].validate(msgspec.json.decode(record.value or b"null"))
            seen[record.topic] += 1
    outputs = (TOPICS.rated, TOPICS.ledger, TOPICS.event, TOPICS.state, TOPICS.notification, TOPICS.recharge_request)
    assert all(seen[topic] for topic in outputs), dict(seen)
