"""Stripe's amounts: integers of a currency's smallest unit, which is not ISO 4217's for every currency.

What can't be charged exactly is not charged: an amount is never rounded on its way to a card.
"""

from rater.domain.currencies import CURRENCY_DIGITS
from rater.domain.money import format_micros, parse_micros

_NO_DIGITS = frozenset(
    ["BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "VND", "VUV", "XAF", "XOF", "XPF"],
)
_THREE_DIGITS = frozenset(["BHD", "JOD", "KWD", "OMR", "TND"])
#: Written with two digits by Stripe, but charged in whole units only.
_WHOLE_UNITS = frozenset({"ISK", "UGX"})


class AmountError(ValueError):
    """An amount that can't be charged exactly in its currency."""


def to_minor_units(amount: str, currency: str) -> int:
    """A decimal string as Stripe wants it. Raises `AmountError`."""
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
    """What Stripe says was charged, as a decimal string."""
    return format_micros(minor * _unit_micros(currency), CURRENCY_DIGITS[currency])


def _unit_micros(currency: str) -> int:
    return 1_000_000 if currency in _NO_DIGITS else 1_000 if currency in _THREE_DIGITS else 10_000
