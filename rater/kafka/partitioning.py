"""Which partition an organization's records belong to."""

from aiokafka.partitioner import murmur2


def partition_of(org_id: str, partitions: int) -> int:
    """The partition an organization's records belong to: Kafka's default partitioner."""
    return int(murmur2(org_id.encode()) & 0x7FFFFFFF) % partitions
