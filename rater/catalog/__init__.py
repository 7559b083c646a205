"""Files of rates, plans, organizations and users. Each is checked whole, and every fault has its line and column."""

from rater.catalog.faults import CheckedFile, FileFault
from rater.catalog.organizations import check_organizations
from rater.catalog.plans import check_plans
from rater.catalog.rates import DeckDefaults, check_rates
from rater.catalog.users import check_users, write_users

__all__ = [
    "CheckedFile",
    "DeckDefaults",
    "FileFault",
    "check_organizations",
    "check_plans",
    "check_rates",
    "check_users",
    "write_users",
]
