"""Plans and the pools of minutes they give an organization (rules 10 to 13, 25).

A pool is (organization, plan, allowance, calendar month). Its size is not stored: minutes_per_user × the users that hold
the plan at that moment. What is stored is what was used, and which of its events went out.
"""

from dataclasses import dataclass
from typing import Final

from rater.domain import messages
from rater.domain.rows import Pool, PoolKey

LOW_PERCENT: Final = 80


@dataclass(frozen=True)
class Allowance:
    """An allowance ready to ask: None for "all" destinations or number types."""

    allowance_id: str
    minutes_per_user: int
    destinations: frozenset[str] | None
    number_types: frozenset[str] | None

    def covers(self, country: str, number_type: str) -> bool:
        """Whether calls to the country and number type are among its destinations (rule 10)."""
        return (self.destinations is None or country in self.destinations) and (
            self.number_types is None or number_type in self.number_types
        )


@dataclass(frozen=True)
class Plan:
    """A plan ready to ask."""

    plan_id: str
    service: str
    allowances: tuple[Allowance, ...]
    joint_exhaustion: bool

    def allowance_for(self, country: str, number_type: str) -> Allowance | None:
        """The first allowance that covers the destination (rule 10)."""
        for allowance in self.allowances:
            if allowance.covers(country, number_type):
                return allowance
        return None


def plan_of(message: messages.Plan) -> Plan:
    """A catalog message as a plan to rate with."""
    return Plan(
        message.plan_id,
        message.service,
        tuple(
            Allowance(
                a.allowance_id,
                a.minutes_per_user,
                None if a.destinations == "*" else frozenset(a.destinations),
                None if a.number_types is None else frozenset(a.number_types),
            )
            for a in message.allowances
        ),
        message.joint_exhaustion,
    )


def minutes_left(pools: dict[PoolKey, Pool], plan: Plan, allowance: Allowance, month: str, holders: int) -> int:
    """Minutes the pool still has; none once a sibling of a jointly exhausted plan is used up (rules 11, 12)."""
    pool = pools.get((plan.plan_id, allowance.allowance_id, month))
    left = allowance.minutes_per_user * holders - (pool.used if pool is not None else 0)
    if left <= 0:
        return 0
    if plan.joint_exhaustion:
        for sibling in plan.allowances:
            other = pools.get((plan.plan_id, sibling.allowance_id, month))
            if other is not None and other.used >= sibling.minutes_per_user * holders:
                return 0
    return left
