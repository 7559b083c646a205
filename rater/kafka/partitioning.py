"""Which partition holds an organization's records."""

from aiokafka.partitioner import murmur2


def partition_of(org_id: str, partitions: int) -> int:
    """The partition that Kafka's default partitioner gives an organization, of so many `partitions`."""
    return int(murmur2(org_id.encode()) & 0x7FFFFFFF) % partitions
