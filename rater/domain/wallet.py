"""The prepaid wallet: lots and overdraft (rules 16 to 19).

Model: a purchase makes a lot, which is valid for 12 calendar months. A charge takes from the lots valid at the call's answer,
the soonest expiry first. What they can't pay becomes overdraft, which the next credit repays first.

Invariants (`check`)
- balance = sum of lots − overdraft; overdraft >= 0; every lot has more than 0 left; lots are in the order they are spent.
- A change of the balance equals the sum of its postings: no money appears or disappears between lots and overdraft.
"""

from bisect import insort
from typing import Final

from rater.domain import moments
from rater.domain.rows import Funds, Lot, Part

#: How many days before its expiry a lot is warned of, the first warning first.
WARNING_DAYS: Final = (30, 7)


class Wallet:
    """Lots in the order they are spent, overdraft and balance; micros."""

    __slots__ = ("balance", "lots", "overdraft")

    def __init__(self, funds: Funds) -> None:
        self.lots = funds.lots
        self.overdraft = funds.overdraft
        self.balance = funds.balance

    def row(self) -> Funds:
        """The wallet as its row has it."""
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
        """Take a charge from the lots valid at the instant (rules 16, 17); returns the parts, and what became overdraft."""
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
        """Add a lot of 12 months and repay overdraft (rules 16, 17); returns the lot, and the parts that repaid."""
        assert micros > 0, micros
        lot = Lot(lot_id, micros, micros, now_us, moments.a_year_later(now_us))
        self.balance += micros
        insort(self.lots, lot, key=spend_order)
        return lot, self.repay(now_us)

    def give_back(self, parts: list[Part], overdrawn: int, lot_id: str, now_us: int) -> tuple[list[Part], int, list[Part]]:
        """Reverse a charge: return it to the lots it came from, and cancel the overdraft it made (rule 19).

        Overdraft that was repaid since comes back as a new lot, `lot_id`. Returns the parts that went to lots, the micros that
        cancelled overdraft, and the parts of lots that then repaid other overdraft.
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
        """Remove the lots that have expired by the instant (rule 18), and return them."""
        gone = [lot for lot in self.lots if lot.expires_us <= as_of_us]
        if gone:
            self.lots = [lot for lot in self.lots if lot.expires_us > as_of_us]
            self.balance -= sum(lot.remaining for lot in gone)
        return gone

    def repay(self, now_us: int) -> list[Part]:
        """Repay overdraft from the lots valid now, in the order they are spent (rule 17). The balance does not change."""
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
        self.balance += micros  # the overdraft shrank as much as the lots did
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
