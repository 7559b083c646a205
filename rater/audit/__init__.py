"""The audit: proves that ledger, rated calls, events and states agree, or names each discrepancy.

`cluster` reads them from Kafka; `second_opinion` compares them with `rater simulate` over the same input.
"""

from rater.audit.books import Books, Discrepancy, audit

__all__ = ["Books", "Discrepancy", "audit"]
