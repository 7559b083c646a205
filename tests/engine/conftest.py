"""A real broker for the engine's tests, and their common fixtures."""

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rater.embedded import EmbeddedKafka
from rater.settings import Settings

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with EmbeddedKafka(tmp_path_factory.mktemp("kafka")) as kafka:
        yield kafka.bootstrap


@pytest.fixture
def prefix() -> str:
    """A prefix for the topics and the group of one test, unique on the shared broker."""
    return f"e{os.getpid()}-{next(_numbers)}."


@pytest.fixture
def settings_of(bootstrap: str, prefix: str, tmp_path: Path) -> Callable[..., Settings]:
    def make(**given: object) -> Settings:
        values: dict[str, object] = {
            "bootstrap": bootstrap,
            "topic_prefix": prefix,
            "app_id": f"{prefix}app",
            "data_dir": tmp_path / "data",
            "instance_id": "worker-1",
            "session_timeout_ms": 6000,
            "heartbeat_interval_ms": 300,
        }
        return Settings.model_validate(values | given)

    return make
