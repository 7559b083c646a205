"""Stripe's amounts: integers in a currency's smallest unit. For some currencies that unit differs from ISO 4217's.

An amount is never rounded on its way to a card: if it can't be charged exactly, it isn't charged.
"""

from rater.domain.currencies import CURRENCY_DIGITS
from rater.domain.money import format_micros, parse_micros

_NO_DIGITS = frozenset(
    ["BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "VND", "VUV", "XAF", "XOF", "XPF"],
)
_THREE_DIGITS = frozenset(["BHD", "JOD", "KWD", "OMR", "TND"])
#: Stripe writes them with two digits, but charges whole units only.
_WHOLE_UNITS = frozenset({"ISK", "UGX"})


class AmountError(ValueError):
    """The amount can't be charged exactly in its currency."""


def to_minor_units(amount: str, currency: str) -> int:
    """A decimal string in Stripe's units. Raises `AmountError` if it can't be charged exactly."""
    micros, unit = parse_micros(amount), _unit_micros(currency)
    step = unit
    if currency in _THREE_DIGITS:
        step = 10 * unit  # the last digit must be 0
    elif currency in _WHOLE_UNITS:
        step = 100 * unit
    if micros <= 0 or micros % step:
        raise AmountError(f"{amount} {currency} can't be charged exactly")
    return micros // unit


def from_minor_units(minor: int, currency: str) -> str:
    """An amount in Stripe's units as a decimal string."""
    return format_micros(minor * _unit_micros(currency), CURRENCY_DIGITS[currency])


def _unit_micros(currency: str) -> int:
    return 1_000_000 if currency in _NO_DIGITS else 1_000 if currency in _THREE_DIGITS else 10_000
