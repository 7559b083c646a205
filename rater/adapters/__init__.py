"""What the rater reaches outside Kafka: one folder a kind of thing."""
