"""Runs the demo from start to audit.

The broker is real, and so is the `rater worker` process with all its agents. Catalog and organizations come from the sample
files, calls come in at a steady rate. The demo itself plays the payment service and the mail server, over real HTTP and SMTP.
At the end it audits the books and compares them with `rater simulate` over the same records.
"""

import asyncio
import signal
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from aiokafka import AIOKafkaProducer
from rich.console import Console

from rater.audit import Books, Discrepancy, audit
from rater.audit.second_opinion import compare, worker_order
from rater.catalog import CheckedFile, DeckDefaults, check_organizations, check_plans, check_rates
from rater.demo import mailbox
from rater.demo.display import Display
from rater.demo.mailbox import Mailbox
from rater.demo.payment_service import PaymentService
from rater.demo.totals import Totals, amounts, counts
from rater.demo.traffic import Traffic
from rater.demo.worker_process import DemoError, WorkerProcess
from rater.domain import moments
from rater.embedded import EmbeddedKafka
from rater.kafka.clients import lag, producer, publish_rows, reader
from rater.kafka.log import LogRecord, as_log_record
from rater.kafka.topic_admin import apply
from rater.kafka.topics import Topics, load_topics
from rater.resources import resource

APP_ID = "rater-demo"
AGENTS = ("rating", "recharge", "timer", "notification")
SEED = 2025
TICK_S = 0.1
DONE_TIMEOUT_S = 30.0
LONG_AGO_ORG = "tailspin"
BOUGHT_DAYS_AGO = 360


@dataclass
class Demo:
    """One run of the demo: `calls_per_s` × `seconds` calls. `keep`: leave broker and worker running until Ctrl-C."""

    console: Console
    calls_per_s: int = 150
    seconds: float = 20.0
    keep: bool = False
    topics: Topics = field(default_factory=load_topics)
    before: list[LogRecord] = field(default_factory=list)
    calls: list[LogRecord] = field(default_factory=list)
    commands: list[LogRecord] = field(default_factory=list)
    payments: PaymentService = field(default_factory=PaymentService)
    mailbox: Mailbox = field(default_factory=lambda: Mailbox(Path(tempfile.gettempdir()) / "rater-demo-mails"))

    async def run(self) -> int:
        """Run the demo; returns the exit code: 1 if the audit finds a difference. Raises `DemoError`."""
        say = self.console.print
        with tempfile.TemporaryDirectory(prefix="rater-demo-") as name:
            directory = Path(name)
            say("Starting a Kafka broker …")
            async with EmbeddedKafka(directory / "kafka") as kafka, self.payments, self.mailbox:
                await apply(kafka.bootstrap, self.topics)
                say(f"Kafka is running at {kafka.bootstrap} with {len(self.topics.definitions)} topics.")
                await self._load(kafka.bootstrap)
                worker = WorkerProcess(AGENTS, self._settings(kafka.bootstrap, directory), directory / "worker.log")
                try:
                    await worker.start()
                    totals = await self._traffic(kafka.bootstrap, worker)
                    if self.keep:
                        self._report(totals)
                        say(f"\nBroker and worker keep running: --bootstrap {kafka.bootstrap}. Ctrl-C stops them.")
                        await _until_interrupted(worker)
                finally:
                    await worker.stop()
                return 0 if self.keep else self._report(totals)

    def _settings(self, bootstrap: str, directory: Path) -> dict[str, str]:
        """The worker's settings, for its environment."""
        return {
            "RATER_BOOTSTRAP": bootstrap,
            "RATER_APP_ID": APP_ID,
            "RATER_DATA_DIR": str(directory / "data"),
            "RATER_PAYMENT_GATEWAY": "webhook",
            "RATER_PAYMENT_WEBHOOK_URL": self.payments.url,
            "RATER_PAYMENT_WEBHOOK_SECRET": self.payments.secret,
            "RATER_MAIL_HOST": mailbox.HOST,
            "RATER_MAIL_PORT": str(self.mailbox.port),
            "RATER_MAIL_SECURITY": "none",
            "RATER_MAIL_FROM": "credit@rater.example",
        }

    async def _load(self, bootstrap: str) -> None:
        started_s = time.monotonic()
        topics = self.topics
        with resource("samples", "pstn-rates-2025-10.csv").open(newline="") as lines:
            deck = _checked(check_rates(lines, DeckDefaults()))
        with resource("samples", "rates-illustrative.csv").open(newline="") as lines:
            more = _checked(check_rates(lines, DeckDefaults()))
        plans = _checked(check_plans(resource("samples", "plans.json").read_text()))
        self.before += await publish_rows(bootstrap, topics.rate, deck + more)
        self.before += await publish_rows(bootstrap, topics.plan, plans)
        took_s = time.monotonic() - started_s
        self.console.print(
            f"Loaded the rate deck of October 2025 ({len(deck)} prefixes), {len(more)} sample rates and"
            f" {len(plans)} plans in {took_s:.1f} s.",
            soft_wrap=True,
        )

    async def _traffic(self, bootstrap: str, worker: WorkerProcess) -> Totals:
        """Publish organizations, then calls, and watch the outputs until everything is processed."""
        topics = self.topics
        organizations = resource("samples", "organizations.json").read_text()
        commands = _checked(check_organizations(organizations))
        totals = Totals(topics)
        read = [
            topics.rated,
            topics.ledger,
            topics.event,
            topics.state,
            topics.dead_letter,
            topics.command,
            topics.notification,
        ]
        async with reader(bootstrap, read) as consumer, producer(bootstrap) as out:
            display = Display(self.console, totals)
            watching = asyncio.create_task(self._watch(consumer, totals, display))
            try:
                self.before += await publish_rows(bootstrap, topics.command, commands)
                self.before.append(await self._buy_long_ago(out))
                await self._until_committed(bootstrap, worker, watching)
                self.console.print(
                    f"Created {len(totals.states)} organizations with {len(commands)} commands. Now calls come in.\n"
                )
                with display:
                    await self._publish_calls(out, totals, display, msgspec.json.decode(organizations))
                    await self._until_settled(bootstrap, worker, consumer, totals, watching)
            finally:
                watching.cancel()
                await asyncio.wait([watching])
        return totals

    async def _buy_long_ago(self, out: AIOKafkaProducer) -> LogRecord:
        """Publish a purchase of nearly a year ago, so that the timer warns that its credit expires soon."""
        bought_ms = time.time_ns() // 1_000_000 - BOUGHT_DAYS_AGO * 86_400_000
        command = {
            "command_id": "demo:long-ago",
            "type": "funds.add",
            "org_id": LONG_AGO_ORG,
            "issued_at": moments.to_text(bought_ms * 1000),
        }
        command |= {"amount": "3000", "currency": "JPY", "purchase_channel": "web-direct", "payment_reference": "long ago"}
        record = LogRecord(self.topics.command, bought_ms, LONG_AGO_ORG.encode(), msgspec.json.encode(command))
        await out.send_and_wait(record.topic, record.value, key=record.key, timestamp_ms=record.timestamp)
        return record

    async def _publish_calls(
        self, out: AIOKafkaProducer, totals: Totals, display: Display, organizations: Sequence[dict[str, Any]]
    ) -> None:
        traffic = Traffic(organizations, SEED)
        start_s = time.monotonic()
        total = int(self.calls_per_s * self.seconds)
        acknowledgements = []
        while totals.published < total:
            due = min(total, int((time.monotonic() - start_s) * self.calls_per_s) + 1)
            for org_id, value in traffic.calls(due - totals.published, time.time()):
                record = LogRecord(self.topics.cdr, time.time_ns() // 1_000_000, org_id.encode(), value)
                acknowledgements.append(await out.send(record.topic, value, key=record.key, timestamp_ms=record.timestamp))
                self.calls.append(record)
                totals.published += 1
            display.update()
            await asyncio.sleep(TICK_S)
        await out.flush()
        for acknowledgement in acknowledgements:
            await acknowledgement

    async def _watch(self, consumer: Any, totals: Totals, display: Display) -> None:
        """Read committed records, update the totals and show them."""
        while True:
            for records in (await consumer.getmany(timeout_ms=100)).values():
                for found in records:
                    record = as_log_record(found)
                    if record.topic == self.topics.command:
                        self.commands.append(record)
                        continue
                    for line in totals.take(record, time.time_ns() // 1_000_000):
                        display.event(line)
            display.update()

    async def _until_committed(self, bootstrap: str, worker: WorkerProcess, watching: "asyncio.Task[None]") -> None:
        """Wait until the worker has committed all input. Raises `DemoError` after `DONE_TIMEOUT_S`."""
        deadline_s = time.monotonic() + DONE_TIMEOUT_S
        while await lag(bootstrap, self.topics, APP_ID):
            worker.check()
            if watching.done():
                watching.result()
            if time.monotonic() > deadline_s:
                raise DemoError(f"the worker did not catch up within {DONE_TIMEOUT_S:.0f} s")
            await asyncio.sleep(TICK_S)

    async def _until_settled(
        self,
        bootstrap: str,
        worker: WorkerProcess,
        consumer: Any,
        totals: Totals,
        watching: "asyncio.Task[None]",
    ) -> None:
        """Wait until all input is committed, all output is read, every recharge answered and every mail sent."""
        deadline_s = time.monotonic() + DONE_TIMEOUT_S
        while True:
            await self._until_committed(bootstrap, worker, watching)
            await self._until_read(consumer, watching)
            if not totals.recharging() and not totals.undelivered:
                return
            if time.monotonic() > deadline_s:
                raise DemoError(f"recharges without an answer: {totals.recharging()}; mails not sent: {totals.undelivered}")

    async def _until_read(self, consumer: Any, watching: "asyncio.Task[None]") -> None:
        """Wait until the watcher has read everything that is committed."""
        ends = await consumer.end_offsets(list(consumer.assignment()))
        while any([await consumer.position(tp) < end for tp, end in ends.items()]):
            if watching.done():
                watching.result()
            await asyncio.sleep(TICK_S)
        await asyncio.sleep(TICK_S)  # so that the watcher can take the records of its last poll

    def _report(self, totals: Totals) -> int:
        say = partial(self.console.print, soft_wrap=True)
        books = Books.of(self.topics, totals.records)
        duplicates = totals.published - totals.rated - totals.dead_letters.total()
        say("\n[bold]Summary[/bold]")
        say(f"  CDRs in         {totals.published}")
        say(f"  rated           {totals.rated}: {counts(totals.funded_by)}")
        say(f"  dead-lettered   {totals.dead_letters.total()}: {counts(totals.dead_letters)}")
        say(f"  duplicates      {duplicates}")
        say(f"  charged         {amounts(totals.charged)}")
        say(f"  unfunded        {amounts(totals.unfunded)}")
        say(f"  events          {counts(totals.event_types)}")
        say(f"  service         suspended: {counts(totals.suspensions)}; restored: {counts(totals.restorations)}")
        say(f"  payments        taken: {counts(self.payments.taken)}; declined: {counts(self.payments.declined)}")
        say(f"  mails           {len(self.mailbox.subjects)}; read them in {self.mailbox.folder}")
        latency = f"p50 {totals.latency_ms(50)} ms, p99 {totals.latency_ms(99)} ms"
        say(f"  latency         {latency}, from publishing a CDR to its committed output")
        findings = audit(books)
        loaded = {record.value for record in self.before}
        live = [*self.calls, *(record for record in self.commands if record.value not in loaded)]
        log = worker_order(self.topics, self.before, live, books)
        findings += compare(self.topics, log, books)
        if totals.rated + totals.dead_letters.total() > totals.published or duplicates < 0:
            findings.append(Discrepancy("all", "more calls came out than went in"))
        say("\n[bold]Audit[/bold]")
        for finding in findings:
            say(f"  [red]{finding}[/red]")
        transactions = sum(len(account.ledger) for account in books.accounts.values())
        say(
            f"  Added up {transactions} ledger transactions of {len(books.accounts)} organizations, and compared them with"
            f" states and rated calls,\n  and with `rater simulate` over the same {len(log)} records:"
        )
        say("  [red]they differ[/red]" if findings else "  [green]every balance agrees, to the last millionth[/green]")
        say("\n[bold]Next[/bold]")
        say("  rater demo --keep                  keeps everything running for you to try things")
        say("  rater load rates FILE --dry-run    checks your own rate deck")
        say("  rater simulate LOG                 rates your own log without Kafka; docs/contract.md describes its format")
        return 1 if findings else 0


def _checked(loaded: CheckedFile) -> list[tuple[str, dict[str, Any]]]:
    if loaded.faults:
        raise DemoError(f"a sample file is faulty: {loaded.faults[0]}")
    return loaded.rows


async def _until_interrupted(worker: WorkerProcess) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    waits = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(worker.until_ended())]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for waiting in waits:
        waiting.cancel()
