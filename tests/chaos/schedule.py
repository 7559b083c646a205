"""A schedule of faults, which depends only on a seed.

A fault is an episode: it begins `at_s` after the start of the load and lasts `for_s`; then its target is as before. Episodes of
different targets overlap, and that is where the interesting things happen. Invariants:

- A worker has at most one fault at a time, and so do the brokers together: with two of three away nothing is guaranteed.
- Kinds of faults are dealt like cards: all of them come before one comes again, so a longer schedule has every kind.
- A frozen worker stays frozen for longer than its session.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["BROKER_FAULTS", "WORKER_FAULTS", "Fault", "Step", "make_schedule"]


class Fault(StrEnum):
    """The kinds of faults. The last three hit a broker, all others a worker."""

    KILL = "kill -9"
    TERMINATE = "SIGTERM"
    FREEZE = "SIGSTOP for longer than the session, SIGCONT"
    TWIN = "a second worker with the same identity"
    ZOMBIE = "SIGSTOP, a successor with the same identity, SIGCONT"
    LOSE_STORE = "kill -9, its disk store deleted"
    JOIN = "a worker added, and removed again"
    KILL_BROKER = "broker killed, and started again"
    BOUNCE_BROKER = "broker stopped cleanly, and started again"
    MOVE_LEADERS = "every leader moved"


WORKER_FAULTS = (Fault.KILL, Fault.TERMINATE, Fault.FREEZE, Fault.TWIN, Fault.ZOMBIE, Fault.LOSE_STORE)
BROKER_FAULTS = (Fault.KILL_BROKER, Fault.BOUNCE_BROKER, Fault.MOVE_LEADERS)

# How long an episode lasts in seconds, from and to. For a frozen worker the session comes on top.
_LASTS_S = {
    Fault.KILL: (0.0, 6.0),
    Fault.TERMINATE: (0.0, 6.0),
    Fault.FREEZE: (1.0, 3.0),
    Fault.TWIN: (3.0, 4.0),
    Fault.ZOMBIE: (1.0, 3.0),
    Fault.LOSE_STORE: (0.0, 2.0),
    Fault.JOIN: (4.0, 9.0),
    Fault.KILL_BROKER: (1.0, 6.0),
    Fault.BOUNCE_BROKER: (0.0, 3.0),
    Fault.MOVE_LEADERS: (0.0, 0.0),
}
_FROZEN = frozenset({Fault.FREEZE, Fault.ZOMBIE})
_WORKER_PAUSE_S = (0.5, 4.0)
_BROKER_PAUSE_S = (2.0, 6.0)


@dataclass(frozen=True, slots=True)
class Step:
    """One episode. `target`: number of a worker or a broker. `at_s` counts from the start of the load."""

    at_s: float
    fault: Fault
    target: int
    for_s: float

    def __str__(self) -> str:
        whom = "broker" if self.fault in BROKER_FAULTS else "worker"
        return f"{self.at_s:6.1f} s  {whom} {self.target}: {self.fault} ({self.for_s:.1f} s)"


def make_schedule(seed: int, seconds: float, workers: int, brokers: int, session_s: float) -> list[Step]:
    """Episodes that begin within `seconds`, in the order in which they begin.

    Workers and brokers are numbered from 0; the worker that joins and leaves has the number `workers`.
    """
    draw = random.Random(seed)
    steps = [
        *_lanes(draw, WORKER_FAULTS, range(workers), seconds, _WORKER_PAUSE_S, session_s),
        *_lanes(draw, (Fault.JOIN,), [workers], seconds, _WORKER_PAUSE_S, session_s),
        *_broker_steps(draw, brokers, seconds),
    ]
    return sorted(steps, key=lambda step: step.at_s)


def _lanes(
    draw: random.Random,
    faults: Sequence[Fault],
    targets: Sequence[int],
    seconds: float,
    pause_s: tuple[float, float],
    session_s: float,
) -> Iterator[Step]:
    """The next fault goes to the target that is free first."""
    free_at_s = {target: draw.uniform(*pause_s) for target in targets}
    for fault in _dealt(draw, faults):
        target = min(targets, key=lambda t: free_at_s[t])
        if free_at_s[target] >= seconds:
            return
        for_s = draw.uniform(*_LASTS_S[fault]) + (session_s if fault in _FROZEN else 0.0)
        yield Step(free_at_s[target], fault, target, for_s)
        free_at_s[target] += for_s + draw.uniform(*pause_s)


def _broker_steps(draw: random.Random, brokers: int, seconds: float) -> Iterator[Step]:
    """Faults of brokers, one after the other."""
    at_s = draw.uniform(*_BROKER_PAUSE_S)
    for fault in _dealt(draw, BROKER_FAULTS):
        if at_s >= seconds:
            return
        step = Step(at_s, fault, draw.randrange(brokers), draw.uniform(*_LASTS_S[fault]))
        yield step
        at_s += step.for_s + draw.uniform(*_BROKER_PAUSE_S)


def _dealt(draw: random.Random, faults: Sequence[Fault]) -> Iterator[Fault]:
    """All faults in random order, over and over."""
    while True:
        yield from draw.sample(faults, len(faults))
