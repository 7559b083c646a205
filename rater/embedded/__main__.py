"""`python -m rater.embedded` downloads what the embedded Kafka needs; after that it starts without network."""

import sys

from rater.embedded import EmbeddedKafkaError, fetch

try:
    fetch()
except EmbeddedKafkaError as error:
    sys.exit(f"error: {error}")
