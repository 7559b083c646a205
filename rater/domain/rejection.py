"""Why a record is not rated, or a command not carried out: the codes of the contract."""

#: Dead-letter codes whose cause can be removed later: the record can then be put back (`rater replay`).
RETRYABLE = frozenset({"unknown_organization", "unknown_user", "no_rate"})

#: Every dead-letter code of the contract.
DEAD_LETTER_CODES = (
    *("malformed_json", "too_large", "too_deep", "invalid_field", "bad_number", "conflicting_duplicate", "period_closed"),
    *sorted(RETRYABLE),
)


class Rejected(Exception):
    """The record must not be rated; `code` is the contract's. Raised before anything has changed."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message

    @property
    def retryable(self) -> bool:
        """Whether the same bytes may be rated later, once their cause is removed."""
        return self.code in RETRYABLE


class Refused(Exception):
    """The command is understood, but not carried out; `code` is the contract's. Raised before anything has changed."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
