"""Clients of services outside Kafka: payment gateways in `payments`, mail and webhooks in `notices`."""
