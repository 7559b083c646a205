"""The stream engine: batches in, one Kafka transaction a batch out. It knows nothing of calls; see `api`."""
