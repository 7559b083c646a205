"""Rates telephony call-detail records on Kafka: exact money, exactly once."""

from rater import compiled

__version__ = "0.1.0"

compiled.use()
