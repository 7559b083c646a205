"""The rating core on rows in memory, with no Kafka: `rater simulate`, and the oracle of the audit and the tests."""

from rater.simulation.simulate import MemoryRows, Simulation, simulate

__all__ = ["MemoryRows", "Simulation", "simulate"]
