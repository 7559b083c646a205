"""Which row of a rate deck prices a call (rule 8)."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from rater.domain.deck import FOREVER_US, Deck, PrefixTable, PricedRow

AT_US = 1000


def row(
    prefix: str,
    rate_id: str = "",
    from_us: int = 0,
    to_us: int = FOREVER_US,
    rate_card: str = "default",
) -> PricedRow:
    name = rate_id or f"r{prefix}"
    texts = (name, rate_card, "outbound", prefix, "there", "GB", "", "USD")
    return PricedRow(*texts, 10_000, 0, 0, 60, 60, from_us, to_us, "0.01", "0.00")


def table_of(*rows: PricedRow) -> PrefixTable:
    table = PrefixTable()
    for each in rows:
        table.add(each)
    return table


def found(table: PrefixTable, digits: str, at_us: int = AT_US) -> str | None:
    """The rate_id of the row for a number."""
    row = table.find(digits, at_us)
    return None if row is None else row.rate_id


def test_the_longest_prefix_wins() -> None:
    table = table_of(row("4"), row("4420"), row("44"))
    assert found(table, "442079460000") == "r4420"


def test_a_number_that_begins_with_no_prefix_has_no_row() -> None:
    assert found(table_of(row("44"), row("4420")), "49301234") is None


def test_a_number_shorter_than_a_prefix_is_not_matched_by_it() -> None:
    assert found(table_of(row("44207")), "4420") is None


def test_a_number_may_be_a_prefix_as_a_whole() -> None:
    assert found(table_of(row("4420")), "4420") == "r4420"


def test_a_row_is_valid_from_its_first_instant_until_before_its_last() -> None:
    table = table_of(row("44", from_us=10, to_us=20))
    assert [found(table, "442", at_us) for at_us in (9, 10, 19, 20)] == [None, "r44", "r44", None]


def test_a_shorter_prefix_prices_what_no_longer_prefix_is_valid_for() -> None:
    table = table_of(row("44"), row("4420", to_us=AT_US))
    assert found(table, "4420", AT_US - 1) == "r4420"
    assert found(table, "4420", AT_US) == "r44"


def test_of_two_valid_rows_of_a_prefix_the_later_one_wins() -> None:
    assert found(table_of(row("44", "later", from_us=5), row("44", "earlier", from_us=4)), "44") == "later"


def test_of_two_rows_alike_in_prefix_and_start_the_lower_id_wins() -> None:
    assert found(table_of(row("44", "b"), row("44", "a")), "44") == "a"


def test_a_removed_row_prices_nothing() -> None:
    longer = row("4420")
    table = table_of(row("44"), longer)
    table.remove(longer)
    assert found(table, "4420") == "r44"
    assert [each.rate_id for each in table.rows()] == ["r44"]


def test_a_deck_replaces_the_row_with_the_same_id() -> None:
    deck = Deck()
    deck.put(row("44", "r"))
    deck.put(row("49", "r", rate_card="gold"))
    assert found(deck.table("default", "outbound", "USD"), "44") is None
    assert found(deck.table("gold", "outbound", "USD"), "49") == "r"
    assert len(deck) == 1


def test_a_deck_keeps_rate_cards_apart() -> None:
    deck = Deck()
    deck.put(row("44", rate_card="gold"))
    assert found(deck.table("default", "outbound", "USD"), "44") is None


def test_a_table_that_was_asked_for_early_gets_later_rows() -> None:
    deck = Deck()
    table = deck.table("default", "outbound", "USD")
    deck.put(row("44"))
    assert found(table, "44") == "r44"


def test_removing_an_unknown_row_from_a_deck_changes_nothing() -> None:
    deck = Deck()
    deck.put(row("44"))
    deck.remove("unknown")
    assert len(deck) == 1


# Few digits and few instants, so that prefixes nest and validities meet.
DIGITS = st.text("12", min_size=1, max_size=6)
INSTANTS = st.integers(0, 6)


@st.composite
def row_lists(draw: st.DrawFn) -> list[PricedRow]:
    """Rows with ids of their own, in any order."""
    rows = []
    for number in range(draw(st.integers(0, 12))):
        from_us = draw(INSTANTS)
        to_us = draw(st.one_of(st.just(FOREVER_US), st.integers(from_us + 1, 8)))
        rows.append(row(draw(DIGITS), f"r{number:02}", from_us, to_us))
    return draw(st.permutations(rows))


def expected(rows: Sequence[PricedRow], digits: str, at_us: int) -> str | None:
    """Rule 8 by a search of all rows."""
    valid = [r for r in rows if digits.startswith(r.prefix) and r.from_us <= at_us < r.to_us]
    return min(((-len(r.prefix), -r.from_us, r.rate_id) for r in valid), default=(0, 0, None))[2]


@given(row_lists(), DIGITS, INSTANTS)
def test_a_look_up_equals_a_search_of_all_rows(rows: list[PricedRow], digits: str, at_us: int) -> None:
    assert found(table_of(*rows), digits, at_us) == expected(rows, digits, at_us)


@given(row_lists(), st.data(), DIGITS, INSTANTS)
def test_a_look_up_after_removals_equals_a_search_of_the_rows_left(
    rows: list[PricedRow], data: st.DataObject, digits: str, at_us: int
) -> None:
    table = table_of(*rows)
    removed = data.draw(st.sets(st.sampled_from(rows))) if rows else set()
    for each in removed:
        table.remove(each)
    left = [each for each in rows if each not in removed]
    assert found(table, digits, at_us) == expected(left, digits, at_us)
    assert sorted(each.rate_id for each in table.rows()) == sorted(each.rate_id for each in left)
