"""The demo's output while calls come in: a live screen on a terminal, otherwise plain lines."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from rater.demo.totals import Totals, amounts, counts

_PLAIN_EVERY_S = 2.0
_STATUS_STYLE = {"active": "green", "low": "yellow", "suspended": "red"}


class Display:
    """Context manager to show `totals`. Call `update` regularly, and `event` for each line of `Totals.take`."""

    def __init__(self, console: Console, totals: Totals) -> None:
        self._console = console
        self._totals = totals
        self._live = Live(console=console, refresh_per_second=8, transient=True) if console.is_terminal else None
        self._start_s = time.monotonic()
        self._shown_s = 0.0

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def event(self, line: str) -> None:
        """Show a line about an account; the live screen has it already."""
        if self._live is None:
            self._console.print(f"  {line}", highlight=False, soft_wrap=True)

    def update(self) -> None:
        """Refresh the screen; without a terminal print a line from time to time."""
        now_s = time.monotonic()
        if self._live is not None:
            self._live.update(self._screen())
        elif now_s - self._shown_s >= _PLAIN_EVERY_S:
            self._shown_s = now_s
            self._console.print(self._headline(), highlight=False, soft_wrap=True)

    def _headline(self) -> str:
        totals = self._totals
        elapsed_s = max(0.1, time.monotonic() - self._start_s)
        return (
            f"{totals.published} CDRs in, {totals.rated} rated ({totals.rated / elapsed_s:.0f}/s), "
            f"{totals.dead_letters.total()} dead-lettered; latency "
            f"p50 {totals.latency_ms(50)} ms, p99 {totals.latency_ms(99)} ms"
        )

    def _screen(self) -> Group:
        totals = self._totals
        table = Table("organization", "status", "balance", "currency", "minutes used", "recharge", expand=True)
        for org_id, state in sorted(totals.states.items()):
            used = ", ".join(f"{p['allowance_id']} {p['minutes_used']}/{p['minutes_total']}" for p in state["pools"])
            status = Text(state["status"], style=_STATUS_STYLE[state["status"]])
            table.add_row(org_id, status, state["balance"], state["currency"], used, state["auto_recharge"]["state"])
        paid = "\n".join(
            (
                f"funded by: {counts(totals.funded_by)}",
                f"charged: {amounts(totals.charged)}",
                f"dead letters: {counts(totals.dead_letters)}",
            )
        )
        events = Panel("\n".join(totals.events) or "none yet", title="latest events", title_align="left")
        return Group(Text(self._headline(), style="bold"), table, Text(paid), events)
