"""What the engine is told: two dozen settings, and no secret but those of the Kafka connection.

`rater/bootstrap.py` makes them from the product's `Settings`, which documents and checks each one. So no password of a mail
server or payment gateway ever enters the engine.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rater.kafka.connection import Connection

__all__ = ["EngineSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """The settings of one engine app. Units are in the names; bounds and defaults are in `rater/settings.py`."""

    brokers: Connection
    app_id: str
    instance_id: str | None
    data_dir: Path

    batch_records_max: int
    batch_bytes_max: int
    fetch_bytes_max: int
    fetch_wait_ms_max: int
    output_batch_bytes_max: int
    output_compression: Literal["none", "snappy", "lz4", "zstd"]
    merge_wait_ms_max: int

    session_timeout_ms: int
    heartbeat_interval_ms: int
    rebalance_timeout_ms: int
    broker_timeout_ms: int
    retry_wait_ms_max: int
    shutdown_ms_max: int

    stall_ms_max: int
    stall_is_fatal: bool
    accept_lost_input: bool

    store_cache_bytes: int
    store_age_ms_max: int
