"""The wallet: lots, overdraft and balance (rules 16 to 19)."""

import copy

from hypothesis import given
from hypothesis import strategies as st

from rater.domain.moments import DAY_US, a_year_later
from rater.domain.rows import Funds, Part
from rater.domain.wallet import Wallet

NOW_US = 1_759_320_000_000_000  # 2025-10-01T12:00:00Z
TOMORROW_US = NOW_US + DAY_US
NEXT_YEAR_US = a_year_later(NOW_US)


def wallet_of(*lots: tuple[str, int, int]) -> Wallet:
    """A wallet with lots of (id, micros, time of purchase)."""
    wallet = Wallet(Funds([]))
    for lot_id, micros, purchased_us in lots:
        wallet.add(lot_id, micros, purchased_us)
    return wallet


def remaining(wallet: Wallet) -> dict[str, int]:
    """Lot → micros left, in the order they are spent; the wallet's invariants hold."""
    wallet.check()
    return {lot.lot_id: lot.remaining for lot in wallet.lots}


def paid(parts: list[Part]) -> dict[str, int]:
    return {part.lot_id: part.micros for part in parts}


def test_a_new_lot_is_valid_for_twelve_months() -> None:
    lot, repaid = wallet_of().add("a", 5, NOW_US)
    assert (lot.remaining, lot.amount, lot.purchased_us, lot.expires_us) == (5, 5, NOW_US, NEXT_YEAR_US)
    assert repaid == []


def test_the_lot_that_expires_first_is_spent_first() -> None:
    wallet = wallet_of(("late", 10, TOMORROW_US), ("early", 10, NOW_US))
    parts, overdrawn = wallet.spend(12, TOMORROW_US)
    assert (paid(parts), overdrawn) == ({"early": 10, "late": 2}, 0)
    assert remaining(wallet) == {"late": 8}


def test_lots_of_one_instant_are_spent_by_their_id() -> None:
    wallet = wallet_of(("b", 10, NOW_US), ("a", 10, NOW_US))
    assert paid(wallet.spend(5, NOW_US)[0]) == {"a": 5}


def test_a_lot_that_expired_by_the_instant_pays_nothing() -> None:
    wallet = wallet_of(("old", 10, NOW_US))
    parts, overdrawn = wallet.spend(4, NEXT_YEAR_US)
    assert (parts, overdrawn) == ([], 4)
    assert remaining(wallet) == {"old": 10}
    assert wallet.balance == 6


def test_what_the_lots_cannot_pay_becomes_overdraft() -> None:
    wallet = wallet_of(("a", 10, NOW_US))
    parts, overdrawn = wallet.spend(25, NOW_US)
    assert (paid(parts), overdrawn) == ({"a": 10}, 15)
    assert (remaining(wallet), wallet.overdraft, wallet.balance) == ({}, 15, -15)


def test_a_part_has_what_is_needed_to_restore_its_lot() -> None:
    (part,), _ = wallet_of(("a", 10, NOW_US)).spend(4, NOW_US)
    assert part == Part("a", 4, 10, NOW_US, NEXT_YEAR_US)


def test_new_money_repays_overdraft_first() -> None:
    wallet = wallet_of()
    wallet.spend(15, NOW_US)
    _, repaid = wallet.add("a", 20, NOW_US)
    assert paid(repaid) == {"a": 15}
    assert (remaining(wallet), wallet.overdraft, wallet.balance) == ({"a": 5}, 0, 5)


def test_a_lot_that_repays_all_its_money_is_gone() -> None:
    wallet = wallet_of()
    wallet.spend(15, NOW_US)
    wallet.add("a", 10, NOW_US)
    assert (remaining(wallet), wallet.overdraft, wallet.balance) == ({}, 5, -5)


def test_repaying_does_not_change_the_balance() -> None:
    wallet = wallet_of(("a", 10, NOW_US))
    wallet.spend(4, NEXT_YEAR_US)  # the lot has expired by then, and is still valid at NOW_US
    before = wallet.balance
    assert paid(wallet.repay(NOW_US)) == {"a": 4}
    assert (remaining(wallet), wallet.overdraft, wallet.balance) == ({"a": 6}, 0, before)


def test_expired_lots_repay_nothing() -> None:
    wallet = wallet_of(("a", 10, NOW_US))
    wallet.spend(4, NEXT_YEAR_US)
    assert wallet.repay(NEXT_YEAR_US) == []
    assert wallet.overdraft == 4


def test_a_charge_is_given_back_to_the_lots_it_came_from() -> None:
    wallet = wallet_of(("a", 10, NOW_US), ("b", 10, TOMORROW_US))
    parts, overdrawn = wallet.spend(12, TOMORROW_US)
    given_back, to_overdraft, repaid = wallet.give_back(parts, overdrawn, "void:1", TOMORROW_US)
    assert (paid(given_back), to_overdraft, repaid) == ({"a": 10, "b": 2}, 0, [])
    assert remaining(wallet) == {"a": 10, "b": 10}


def test_giving_back_cancels_the_overdraft_that_the_charge_made() -> None:
    wallet = wallet_of(("a", 10, NOW_US))
    parts, overdrawn = wallet.spend(25, NOW_US)
    _, to_overdraft, _ = wallet.give_back(parts, overdrawn, "void:1", NOW_US)
    assert to_overdraft == 15
    assert (remaining(wallet), wallet.overdraft, wallet.balance) == ({"a": 10}, 0, 10)


def test_overdraft_that_was_repaid_since_comes_back_as_a_new_lot() -> None:
    wallet = wallet_of()
    parts, overdrawn = wallet.spend(15, NOW_US)
    wallet.add("a", 20, NOW_US)
    given_back, to_overdraft, _ = wallet.give_back(parts, overdrawn, "void:1", TOMORROW_US)
    assert (paid(given_back), to_overdraft) == ({"void:1": 15}, 0)
    assert remaining(wallet) == {"a": 5, "void:1": 15}


def test_money_that_is_given_back_repays_other_overdraft() -> None:
    wallet = wallet_of(("a", 10, NOW_US))
    parts, overdrawn = wallet.spend(10, NOW_US)
    wallet.spend(7, NOW_US)
    _, _, repaid = wallet.give_back(parts, overdrawn, "void:1", NOW_US)
    assert paid(repaid) == {"a": 7}
    assert (remaining(wallet), wallet.overdraft, wallet.balance) == ({"a": 3}, 0, 3)


def test_lots_that_have_expired_are_forfeited_whole() -> None:
    wallet = wallet_of(("old", 10, NOW_US), ("new", 20, TOMORROW_US))
    wallet.spend(4, NOW_US)
    assert [(lot.lot_id, lot.remaining) for lot in wallet.forfeit(NEXT_YEAR_US)] == [("old", 6)]
    assert (remaining(wallet), wallet.balance) == ({"new": 20}, 20)


def test_nothing_is_forfeited_before_it_expires() -> None:
    wallet = wallet_of(("a", 10, NOW_US))
    assert wallet.forfeit(NEXT_YEAR_US - 1) == []
    assert remaining(wallet) == {"a": 10}


MICROS = st.integers(1, 10**9)
DAYS = st.integers(0, 800)
#: (what, micros, day): a purchase, a charge, or the forfeiture of what has expired.
CHANGES = st.lists(st.tuples(st.sampled_from(["add", "spend", "forfeit"]), MICROS, DAYS), max_size=20)


def changed(changes: list[tuple[str, int, int]]) -> tuple[Wallet, int]:
    """A wallet after the changes, and the sum of what they say."""
    wallet, total = wallet_of(), 0
    for number, (what, micros, day) in enumerate(changes):
        at_us = NOW_US + day * DAY_US
        if what == "add":
            wallet.add(f"lot-{number:02}", micros, at_us)
            total += micros
        elif what == "spend":
            wallet.spend(micros, at_us)
            total -= micros
        else:
            total -= sum(lot.remaining for lot in wallet.forfeit(at_us))
        wallet.check()
    return wallet, total


@given(CHANGES)
def test_the_balance_is_the_sum_of_all_changes(changes: list[tuple[str, int, int]]) -> None:
    wallet, total = changed(changes)
    assert wallet.balance == total


@given(CHANGES, MICROS, DAYS)
def test_a_charge_is_paid_from_lots_and_overdraft_to_the_micro(
    changes: list[tuple[str, int, int]], micros: int, day: int
) -> None:
    wallet, _ = changed(changes)
    valid = [lot.lot_id for lot in wallet.lots if lot.expires_us > NOW_US + day * DAY_US]
    parts, overdrawn = wallet.spend(micros, NOW_US + day * DAY_US)
    assert sum(part.micros for part in parts) + overdrawn == micros
    assert list(paid(parts)) == valid[: len(parts)]


@given(CHANGES, MICROS, DAYS)
def test_giving_back_at_once_restores_balance_lots_and_overdraft(
    changes: list[tuple[str, int, int]], micros: int, day: int
) -> None:
    wallet, _ = changed(changes)
    at_us = NOW_US + day * DAY_US
    wallet.repay(at_us)  # else giving back would repay what was owed before as well
    before = copy.deepcopy(wallet.row())
    parts, overdrawn = wallet.spend(micros, at_us)
    wallet.give_back(parts, overdrawn, "void:1", at_us)
    wallet.check()
    assert wallet.row() == before


@given(CHANGES)
def test_a_wallet_is_read_back_from_its_row(changes: list[tuple[str, int, int]]) -> None:
    wallet, _ = changed(changes)
    again = Wallet(wallet.row())
    again.check()
    assert again.row() == wallet.row()
