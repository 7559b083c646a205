"""Files of rates, plans and organizations: checked whole, with line and column of every fault, before anything is published."""

from rater.catalog.faults import Fault, Loaded
from rater.catalog.organizations import check_organizations
from rater.catalog.plans import check_plans
from rater.catalog.rates import DeckDefaults, check_rates

__all__ = ["DeckDefaults", "Fault", "Loaded", "check_organizations", "check_plans", "check_rates"]
