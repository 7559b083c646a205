"""Amounts in Stripe's units: exact, or refused."""

import pytest

from rater.adapters.payments.minor_units import AmountError, from_minor_units, to_minor_units

CASES = [("20.00", "USD", 2000), ("500", "JPY", 500), ("5.120", "KWD", 5120), ("7", "ISK", 700), ("3", "UGX", 300)]


@pytest.mark.parametrize(("amount", "currency", "minor"), CASES)
def test_an_amount_is_written_in_the_currencys_smallest_unit_and_read_back(amount: str, currency: str, minor: int) -> None:
    assert to_minor_units(amount, currency) == minor
    assert from_minor_units(minor, currency) == amount


@pytest.mark.parametrize(
    ("amount", "currency"),
    [("0.013", "USD"), ("0.5", "JPY"), ("5.124", "KWD"), ("7.50", "ISK"), ("0.00", "USD"), ("1.5", "MGA")],
)
def test_an_amount_that_cant_be_charged_exactly_is_refused(amount: str, currency: str) -> None:
    with pytest.raises(AmountError):
        to_minor_units(amount, currency)
