"""Why a record is not rated or a command not carried out: the codes of the contract, in one place."""

#: Dead-letter codes a later change can mend: the record may be put back (`rater replay`).
RETRYABLE = frozenset({"unknown_organization", "unknown_user", "no_rate"})

#: Every dead-letter code of the contract.
DEAD_LETTER_CODES = (
    *("malformed_json", "too_large", "too_deep", "invalid_field", "bad_number", "conflicting_duplicate", "period_closed"),
    *sorted(RETRYABLE),
)


class Rejected(Exception):
    """A record that must not be rated, with its contract code. Raised before anything changed."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message

    @property
    def retryable(self) -> bool:
        """Whether the same bytes may be rated once something else is mended."""
        return self.code in RETRYABLE


class Refused(Exception):
    """A command that is understood and not carried out, with its contract code. Raised before anything changed."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
