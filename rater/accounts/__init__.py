"""What operators do, for the command line and for web pages: carry out commands, look up accounts, put dead letters back."""

from rater.accounts.administration import Administration, QueuePosition, new_command_id
from rater.accounts.lookup import AccountOverview, account_overview, account_state, directory, last_events
from rater.accounts.outcomes import CommandOutcome, OutcomeSummary, describe
from rater.accounts.put_back import ReplayCandidates, RetryableCall, put_back, read_candidates

__all__ = [
    "AccountOverview",
    "Administration",
    "CommandOutcome",
    "OutcomeSummary",
    "QueuePosition",
    "ReplayCandidates",
    "RetryableCall",
    "account_overview",
    "account_state",
    "describe",
    "directory",
    "last_events",
    "new_command_id",
    "put_back",
    "read_candidates",
]
