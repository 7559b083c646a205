"""A real Apache Kafka on this machine. You need nothing but Python.

The broker's jars come from Maven Central and the Java runtime from a wheel (see `runtime`). A cluster has one or more KRaft
nodes, each with broker and controller in one JVM (see `node`), all on 127.0.0.1 (see `cluster`). It is meant for demos, tests
and a first look: it is Apache Kafka itself, not an imitation, but not set up to hold data that matters.

    with EmbeddedKafka(folder) as kafka:          # or: async with
        use(kafka.bootstrap)                      # "127.0.0.1:port"
"""

from rater.embedded.cluster import EmbeddedKafka
from rater.embedded.runtime import KAFKA_VERSION, EmbeddedKafkaError, fetch
from rater.embedded.security import ClusterSecurity

__all__ = ["KAFKA_VERSION", "ClusterSecurity", "EmbeddedKafka", "EmbeddedKafkaError", "fetch"]
