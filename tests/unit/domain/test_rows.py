"""The keys under which rows were written stay as they are, and no two rows share one."""

import pytest

from rater.domain import rows


@pytest.mark.parametrize(
    ("found", "key"),
    [
        (rows.account_key("acme"), b"aacme"),
        (rows.user_prefix("acme"), b"u\x00\x04acme"),
        (rows.number_prefix("acme"), b"n\x00\x04acme"),
        (rows.call_prefix("acme"), b"c\x00\x04acme"),
        (rows.command_prefix("acme"), b"k\x00\x04acme"),
        (rows.STANDINGS_KEY, b"t"),
        (rows.catalog_fault_key("catalog.rate.v1", 0), b"fcatalog.rate.v1:0"),
    ],
)
def test_a_key_is_a_letter_and_what_it_is_of(found: bytes, key: bytes) -> None:
    assert found == key


def test_no_two_pairs_of_organization_and_id_have_the_same_key() -> None:
    assert rows.user_prefix("a") + b"bc" != rows.user_prefix("ab") + b"c"
