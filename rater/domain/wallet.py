"""The prepaid wallet: lots and overdraft (rules 16 to 19).

Model: a purchase makes a lot, which lives 12 calendar months. A charge takes from the lots that are valid at the call's
answer, soonest expiry first; what they can't pay becomes overdraft, which the next credit repays first.

Invariants, checked after every change (`check`)
- balance = sum of lots − overdraft; no lot is empty or negative; overdraft >= 0; lots stand in the order they are spent.
- What a change does to the balance is what its postings say: nothing is made or lost between lots and overdraft.
"""

from bisect import insort
from typing import Final

from rater.domain import moments
from rater.domain.rows import Funds, Lot, Part

#: Days before its expiry at which a lot is warned of, the first warning first.
WARNING_DAYS: Final = (30, 7)


class Wallet:
    """Lots in the order they are spent, overdraft and balance, in micros."""

    __slots__ = ("balance", "lots", "overdraft")

    def __init__(self, funds: Funds) -> None:
        self.lots = funds.lots
        self.overdraft = funds.overdraft
        self.balance = funds.balance

    def row(self) -> Funds:
        """The wallet as it is kept."""
        return Funds(self.lots, self.overdraft, self.balance)

    def check(self) -> None:
        """Assert the invariants."""
        total = 0
        before: Lot | None = None
        for lot in self.lots:
            assert lot.remaining > 0, lot
            assert before is None or spend_order(before) < spend_order(lot), (before, lot)
            total += lot.remaining
            before = lot
        assert self.overdraft >= 0, self.overdraft
        assert total - self.overdraft == self.balance, (total, self.overdraft, self.balance)

    def spend(self, micros: int, at_us: int) -> tuple[list[Part], int]:
        """Take a charge from the lots valid at the instant; gives the parts, and what became overdraft (rules 16, 17)."""
        assert micros > 0, micros
        self.balance -= micros
        lots = self.lots
        short = micros
        parts = []
        emptied = False
        for lot in lots:
            if lot.expires_us > at_us:
                taken = min(short, lot.remaining)
                lot.remaining -= taken
                short -= taken
                parts.append(Part(lot.lot_id, taken, lot.amount, lot.purchased_us, lot.expires_us))
                emptied = emptied or lot.remaining == 0
                if short == 0:
                    break
        if emptied:
            self.lots = [lot for lot in lots if lot.remaining]
        self.overdraft += short
        return parts, short

    def add(self, lot_id: str, micros: int, now_us: int) -> tuple[Lot, list[Part]]:
        """A new lot of 12 months; gives it, and what of it repaid overdraft (rules 16, 17)."""
        assert micros > 0, micros
        lot = Lot(lot_id, micros, micros, now_us, moments.a_year_later(now_us))
        self.balance += micros
        insort(self.lots, lot, key=spend_order)
        return lot, self.repay(now_us)

    def give_back(self, parts: list[Part], overdrawn: int, lot_id: str, now_us: int) -> tuple[list[Part], int, list[Part]]:
        """Reverse a charge: to the lots it came from, and to the overdraft it made (rule 19).

        Overdraft that was repaid since comes back as a lot of its own, `lot_id`. Gives what went to lots, what went to
        overdraft, and what of the lots then repaid overdraft that remains.
        """
        given = list(parts)
        for part in parts:
            self._put(part)
        from_overdraft = min(self.overdraft, overdrawn)
        self.overdraft -= from_overdraft
        self.balance += from_overdraft
        if overdrawn > from_overdraft:
            rest = overdrawn - from_overdraft
            part = Part(lot_id, rest, rest, now_us, moments.a_year_later(now_us))
            self._put(part)
            given.append(part)
        return given, from_overdraft, self.repay(now_us)

    def forfeit(self, as_of_us: int) -> list[Lot]:
        """Take out the lots that have expired by the instant (rule 18)."""
        gone = [lot for lot in self.lots if lot.expires_us <= as_of_us]
        if gone:
            self.lots = [lot for lot in self.lots if lot.expires_us > as_of_us]
            self.balance -= sum(lot.remaining for lot in gone)
        return gone

    def repay(self, now_us: int) -> list[Part]:
        """Repay overdraft from the lots valid now, in the order they are spent (rule 17). The balance stays."""
        if self.overdraft == 0:
            return []
        owed = self.overdraft
        funds = sum(lot.remaining for lot in self.lots if lot.expires_us > now_us)
        micros = min(owed, funds)
        if micros == 0:
            return []
        self.overdraft -= micros
        parts, short = self.spend(micros, now_us)
        assert short == 0, short
        self.balance += micros  # what the lots lost the overdraft lost too
        return parts

    def _put(self, part: Part) -> None:
        self.balance += part.micros
        for lot in self.lots:
            if lot.lot_id == part.lot_id:
                lot.remaining += part.micros
                return
        lot = Lot(part.lot_id, part.micros, part.amount, part.purchased_us, part.expires_us)
        insort(self.lots, lot, key=spend_order)


def spend_order(lot: Lot) -> tuple[int, int, str]:
    """Soonest expiry first, then oldest purchase, then lot id (rule 16)."""
    return lot.expires_us, lot.purchased_us, lot.lot_id
