"""The audit: proves from the ledger, rated calls, events and states that they agree, or names what doesn't."""

from rater.audit.books import Books, Finding, audit

__all__ = ["Books", "Finding", "audit"]
