"""What each agent reads and writes, by the names the topics have in `Topics`: as `bootstrap` wires them."""

from dataclasses import dataclass
from typing import Final

from rater.settings import Settings

__all__ = ["WORK", "Work", "group_of"]


@dataclass(frozen=True, slots=True)
class Work:
    """`inputs` are read as a group, `follows` whole by every worker."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    changelog: str
    follows: tuple[str, ...] = ()


WORK: Final = {
    "rating": Work(
        inputs=("command", "cdr"),
        outputs=("rated", "ledger", "event", "state", "recharge_request", "notification", "directory", "dead_letter"),
        changelog="changelog",
        follows=("plan", "rate"),
    ),
    "timer": Work(inputs=("state",), outputs=("command",), changelog="timer_changelog"),
    "recharge": Work(inputs=("recharge_request",), outputs=("command",), changelog="recharge_changelog"),
    "notification": Work(inputs=("notification",), outputs=("command",), changelog="notification_changelog"),
}


def group_of(settings: Settings, agent: str) -> str:
    """The consumer group of an agent."""
    return settings.app_id if agent == "rating" else f"{settings.app_id}-{agent}"
