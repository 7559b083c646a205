"""`python -m rater.embedded` fetches what the embedded Kafka needs; later starts need no network."""

import sys

from rater.embedded import EmbeddedKafkaError, fetch

try:
    fetch()
except EmbeddedKafkaError as error:
    sys.exit(f"error: {error}")
