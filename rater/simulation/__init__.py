"""The rating core without Kafka: `rater simulate`, and the reference that the audit and the tests compare with."""

from rater.simulation.simulate import MemoryRows, Simulation, simulate

__all__ = ["MemoryRows", "Simulation", "simulate"]
