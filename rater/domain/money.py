"""Money: integers inside, decimal strings in messages (rules 1, 14).

An amount is an `int` of micros: 10⁻⁶ of the currency's major unit. In messages it is a decimal string: never a float, an
exponent or a JSON number.

Invariants
- `parse_micros(format_micros(n, d)) == n` for every sum within `SUM_MICROS_MAX`.
- A written amount has at least the ISO 4217 digits of its currency, at most 6, and no trailing zero beyond the former.
- No charge and no wallet exceeds `SUM_MICROS_MAX`, so that every sum fits in 64 bits.
- A price is rounded exactly once, half up, at the end (`price_micros`).
"""

import re
from functools import lru_cache
from typing import Final

MICROS: Final = 1_000_000
AMOUNT_MICROS_MAX: Final = 10**18 - 1  # 12 digits before the point
SUM_MICROS_MAX: Final = 4 * 10**18  # no wallet is larger, in funds or in debt: rows keep sums in 64 bits

#: The amounts of money a message may have, without and with a sign.
AMOUNT_PATTERN = r"\A(0|[1-9][0-9]{0,11})(\.[0-9]{1,6})?\Z"
SIGNED_AMOUNT_PATTERN = r"\A-?(0|[1-9][0-9]{0,11})(\.[0-9]{1,6})?\Z"

_WRITTEN: Final = re.compile(r"\A-?(0|[1-9][0-9]{0,12})(\.[0-9]{1,6})?\Z")  # a sum may have a digit more than an amount


class MoneyError(ValueError):
    """The text is not an amount of money."""


def parse_micros(text: str) -> int:
    """Read a decimal string as micros (rule 1). Raises `MoneyError`."""
    if _WRITTEN.match(text) is None:
        raise MoneyError(f"not an amount of money: {text[:40]!r}")
    whole, _, fraction = text.partition(".")
    micros = int(whole) * MICROS
    if fraction:
        part = int(fraction.ljust(6, "0"))
        micros = micros - part if text[0] == "-" else micros + part
    return micros


def format_micros(micros: int, digits: int) -> str:
    """Write micros as a decimal string with at least `digits` digits after the point (rule 1)."""
    if micros < 0:
        return "-" + format_micros(-micros, digits)
    if digits == 2 and micros % 10_000 == 0:  # by far the most common: a whole number of cents
        cents = micros // 10_000
        return f"{cents // 100}.{cents % 100:02d}"
    whole, part = divmod(micros, MICROS)
    fraction = f"{part:06d}".rstrip("0")
    if len(fraction) < digits:
        fraction = fraction.ljust(digits, "0")
    return f"{whole}.{fraction}" if fraction else str(whole)


#: `format_micros` with a cache, for amounts that repeat: prices, fees, charges.
format_repeating = lru_cache(maxsize=65_536)(format_micros)


def price_micros(rate_micros: int, seconds: int, fee_micros: int, minimum_micros: int) -> int:
    """The charge for `seconds` at `rate_micros` a minute: fee once, rounded once, half up (rule 14)."""
    charge = fee_micros + (rate_micros * seconds * 2 + 60) // 120
    return max(charge, minimum_micros)


def billed_seconds(duration_ms: int, initial_s: int, increment_s: int) -> int:
    """The seconds a call of `duration_ms` > 0 is billed for: the whole call rounded once (rule 5)."""
    seconds = (duration_ms + 999) // 1000
    if seconds <= initial_s:
        return initial_s
    return initial_s - (initial_s - seconds) // increment_s * increment_s
