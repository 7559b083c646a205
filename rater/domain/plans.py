"""Plans and the pools of minutes they give an organization (rules 10 to 13, 25).

There is one pool for each organization, plan, allowance and calendar month. Its size is not stored: it is minutes_per_user ×
the users who hold the plan at that moment. A pool stores the minutes used, and which of its events were sent.
"""

from dataclasses import dataclass
from typing import Final

from rater.domain import messages
from rater.domain.rows import Pool, PoolKey

LOW_PERCENT: Final = 80


@dataclass(frozen=True)
class PreparedAllowance:
    """An allowance, ready to rate with. None stands for all destinations or all number types."""

    allowance_id: str
    minutes_per_user: int
    destinations: frozenset[str] | None
    number_types: frozenset[str] | None

    def covers(self, country: str, number_type: str) -> bool:
        """Whether it includes calls to the country and number type (rule 10)."""
        return (self.destinations is None or country in self.destinations) and (
            self.number_types is None or number_type in self.number_types
        )


@dataclass(frozen=True)
class PreparedPlan:
    """A plan, ready to rate with."""

    plan_id: str
    service: str
    allowances: tuple[PreparedAllowance, ...]
    joint_exhaustion: bool

    def allowance_for(self, country: str, number_type: str) -> PreparedAllowance | None:
        """The first allowance that covers the destination (rule 10)."""
        for allowance in self.allowances:
            if allowance.covers(country, number_type):
                return allowance
        return None


class IncludedMinutes:
    """The allowance that covers a call, and the minutes the call takes from its pool: 0 if the pool has none left."""

    __slots__ = ("allowance", "minutes", "plan_id")

    def __init__(self, plan_id: str, allowance: PreparedAllowance, minutes: int) -> None:
        self.plan_id = plan_id
        self.allowance = allowance
        self.minutes = minutes


def prepare_plan(message: messages.Plan) -> PreparedPlan:
    """Prepare a plan message for rating."""
    return PreparedPlan(
        message.plan_id,
        message.service,
        tuple(
            PreparedAllowance(
                a.allowance_id,
                a.minutes_per_user,
                None if a.destinations == "*" else frozenset(a.destinations),
                None if a.number_types is None else frozenset(a.number_types),
            )
            for a in message.allowances
        ),
        message.joint_exhaustion,
    )


def minutes_left(pools: dict[PoolKey, Pool], plan: PreparedPlan, allowance: PreparedAllowance, month: str, holders: int) -> int:
    """Minutes left in the pool; none if a sibling of a jointly exhausted plan is used up (rules 11, 12)."""
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
