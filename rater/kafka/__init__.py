"""What everything that speaks Kafka shares: connection, clients, topics, ACLs, partitioning, log records."""
