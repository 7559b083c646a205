"""The schedule of faults depends only on its seed and keeps its invariants."""

from itertools import pairwise

import pytest

from tests.chaos.schedule import BROKER_FAULTS, WORKER_FAULTS, Fault, Step, make_schedule

SECONDS = 40.0
WORKERS = 2
BROKERS = 3
SESSION_S = 4.0

seeds = pytest.mark.parametrize("seed", range(50))


def schedule(seed: int, seconds: float = SECONDS) -> list[Step]:
    return make_schedule(seed, seconds, WORKERS, BROKERS, SESSION_S)


@seeds
def test_the_same_seed_gives_the_same_schedule(seed: int) -> None:
    assert schedule(seed) == schedule(seed)
    assert schedule(seed) != schedule(seed + 1)


@seeds
def test_every_kind_of_fault_occurs_within_a_minute(seed: int) -> None:
    assert {step.fault for step in schedule(seed, 60.0)} == set(Fault)


@seeds
def test_faults_begin_in_order_and_within_the_given_time(seed: int) -> None:
    starts = [step.at_s for step in schedule(seed)]
    assert starts == sorted(starts)
    assert all(0 < at_s < SECONDS for at_s in starts)


@seeds
def test_a_worker_has_one_fault_at_a_time(seed: int) -> None:
    for worker in range(WORKERS + 1):
        steps = [step for step in schedule(seed) if step.fault not in BROKER_FAULTS and step.target == worker]
        assert all(one.at_s + one.for_s < next_one.at_s for one, next_one in pairwise(steps))


@seeds
def test_only_one_broker_has_a_fault_at_a_time(seed: int) -> None:
    steps = [step for step in schedule(seed) if step.fault in BROKER_FAULTS]
    assert all(step.target in range(BROKERS) for step in steps)
    assert all(one.at_s + one.for_s < next_one.at_s for one, next_one in pairwise(steps))


@seeds
def test_a_worker_is_frozen_for_longer_than_its_session(seed: int) -> None:
    frozen = [step for step in schedule(seed, 60.0) if step.fault in {Fault.FREEZE, Fault.ZOMBIE}]
    assert frozen
    assert all(step.for_s > SESSION_S for step in frozen)


@seeds
def test_the_worker_that_joins_is_an_extra_one(seed: int) -> None:
    for step in schedule(seed):
        if step.fault == Fault.JOIN:
            assert step.target == WORKERS
        elif step.fault in WORKER_FAULTS:
            assert step.target in range(WORKERS)
