"""The demo from start to proof.

A real broker and a real `rater worker` process with all its agents; catalog and organizations from the sample files; calls at
a steady pace. Of what is outside, the payment service and the mail server are played here, over real HTTP and SMTP.
At the end the books are audited against each other and against `rater simulate` over the very same records.
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
from rater.demo.mailbox import Mailbox
from rater.demo.payments import PaymentService
from rater.demo.tally import Tally, amounts, counts
from rater.demo.traffic import Traffic
from rater.demo.view import View
from rater.demo.worker import DemoError, Worker
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
    """One run. `calls_per_s` × `seconds` calls; `keep` leaves broker and worker running until Ctrl-C."""

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
        """Play it; gives the exit code."""
        say = self.console.print
        with tempfile.TemporaryDirectory(prefix="rater-demo-") as name:
            directory = Path(name)
            say("Starting a Kafka broker …")
            async with EmbeddedKafka(directory / "kafka") as kafka, self.payments, self.mailbox:
                await apply(kafka.bootstrap, self.topics)
                say(f"Kafka is at {kafka.bootstrap}, {len(self.topics.definitions)} topics are made.")
                await self._load(kafka.bootstrap)
                worker = Worker(AGENTS, self._settings(kafka.bootstrap, directory), directory / "worker.log")
                try:
                    await worker.start()
                    tally = await self._traffic(kafka.bootstrap, worker)
                    if self.keep:
                        self._report(tally)
                        say(f"\nBroker and worker go on: --bootstrap {kafka.bootstrap}. Ctrl-C ends them.")
                        await _until_interrupted(worker)
                finally:
                    await worker.stop()
                return 0 if self.keep else self._report(tally)

    def _settings(self, bootstrap: str, directory: Path) -> dict[str, str]:
        """What the worker is given, in its environment."""
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
            deck = _sound(check_rates(lines, DeckDefaults()))
        with resource("samples", "rates-illustrative.csv").open(newline="") as lines:
            more = _sound(check_rates(lines, DeckDefaults()))
        plans = _sound(check_plans(resource("samples", "plans.json").read_text()))
        self.before += await publish_rows(bootstrap, topics.rate, deck + more)
        self.before += await publish_rows(bootstrap, topics.plan, plans)
        took_s = time.monotonic() - started_s
        self.console.print(
            f"Loaded the rate deck of October 2025 ({len(deck)} prefixes), {len(more)} illustrative rates and"
            f" {len(plans)} plans in {took_s:.1f} s.",
            soft_wrap=True,
        )

    async def _traffic(self, bootstrap: str, worker: Worker) -> Tally:
        """Organizations, then calls, watched until everything published is committed."""
        topics = self.topics
        organizations = resource("samples", "organizations.json").read_text()
        commands = _sound(check_organizations(organizations))
        tally = Tally(topics)
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
            view = View(self.console, tally)
            watching = asyncio.create_task(self._watch(consumer, tally, view))
            try:
                self.before += await publish_rows(bootstrap, topics.command, commands)
                self.before.append(await self._buy_long_ago(out))
                await self._until_committed(bootstrap, worker, watching)
                self.console.print(f"{len(commands)} commands made {len(tally.states)} organizations. Calls begin.\n")
                with view:
                    await self._publish_calls(out, tally, view, msgspec.json.decode(organizations))
                    await self._until_settled(bootstrap, worker, consumer, tally, watching)
            finally:
                watching.cancel()
                await asyncio.wait([watching])
        return tally

    async def _buy_long_ago(self, out: AIOKafkaProducer) -> LogRecord:
        """Credit that was bought nearly a year ago: the timer warns of its expiry."""
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
        self, out: AIOKafkaProducer, tally: Tally, view: View, organizations: Sequence[dict[str, Any]]
    ) -> None:
        traffic = Traffic(organizations, SEED)
        start_s = time.monotonic()
        total = int(self.calls_per_s * self.seconds)
        acknowledgements = []
        while tally.published < total:
            due = min(total, int((time.monotonic() - start_s) * self.calls_per_s) + 1)
            for org_id, value in traffic.calls(due - tally.published, time.time()):
                record = LogRecord(self.topics.cdr, time.time_ns() // 1_000_000, org_id.encode(), value)
                acknowledgements.append(await out.send(record.topic, value, key=record.key, timestamp_ms=record.timestamp))
                self.calls.append(record)
                tally.published += 1
            view.update()
            await asyncio.sleep(TICK_S)
        await out.flush()
        for acknowledgement in acknowledgements:
            await acknowledgement

    async def _watch(self, consumer: Any, tally: Tally, view: View) -> None:
        """Read what is committed."""
        while True:
            for records in (await consumer.getmany(timeout_ms=100)).values():
                for found in records:
                    record = as_log_record(found)
                    if record.topic == self.topics.command:
                        self.commands.append(record)
                        continue
                    for line in tally.take(record, time.time_ns() // 1_000_000):
                        view.event(line)
            view.update()

    async def _until_committed(self, bootstrap: str, worker: Worker, watching: "asyncio.Task[None]") -> None:
        """Return when the worker has committed all input there is."""
        deadline_s = time.monotonic() + DONE_TIMEOUT_S
        while await lag(bootstrap, self.topics, APP_ID):
            worker.check()
            if watching.done():
                watching.result()
            if time.monotonic() > deadline_s:
                raise DemoError(f"the worker has not caught up within {DONE_TIMEOUT_S:.0f} s")
            await asyncio.sleep(TICK_S)

    async def _until_settled(
        self,
        bootstrap: str,
        worker: Worker,
        consumer: Any,
        tally: Tally,
        watching: "asyncio.Task[None]",
    ) -> None:
        """Return when all input is committed, all output seen, every recharge asked for answered, and everybody told."""
        deadline_s = time.monotonic() + DONE_TIMEOUT_S
        while True:
            await self._until_committed(bootstrap, worker, watching)
            await self._until_read(consumer, watching)
            if not tally.recharging() and not tally.untold:
                return
            if time.monotonic() > deadline_s:
                raise DemoError(f"no answer to the recharge of {tally.recharging()}, or no mail about {tally.untold}")

    async def _until_read(self, consumer: Any, watching: "asyncio.Task[None]") -> None:
        """Return when everything committed has been seen."""
        ends = await consumer.end_offsets(list(consumer.assignment()))
        while any([await consumer.position(tp) < end for tp, end in ends.items()]):
            if watching.done():
                watching.result()
            await asyncio.sleep(TICK_S)
        await asyncio.sleep(TICK_S)  # for the watcher to take what its last poll brought

    def _report(self, tally: Tally) -> int:
        say = partial(self.console.print, soft_wrap=True)
        books = Books.of(self.topics, tally.records)
        duplicates = tally.published - tally.rated - tally.dead.total()
        say("\n[bold]Summary[/bold]")
        say(f"  CDRs in         {tally.published}")
        say(f"  rated           {tally.rated}: {counts(tally.funded_by)}")
        say(f"  dead-lettered   {tally.dead.total()}: {counts(tally.dead)}")
        say(f"  duplicates      {duplicates}")
        say(f"  charged         {amounts(tally.charged)}")
        say(f"  unfunded        {amounts(tally.unfunded)}")
        say(f"  events          {counts(tally.event_types)}")
        say(f"  service         suspended: {counts(tally.suspensions)}; returned: {counts(tally.returns)}")
        say(f"  payments        taken: {counts(self.payments.taken)}; declined: {counts(self.payments.declined)}")
        say(f"  mails           {len(self.mailbox.subjects)}, to be looked at in {self.mailbox.folder}")
        say(f"  latency         p50 {tally.latency_ms(50)} ms, p99 {tally.latency_ms(99)} ms, publish to committed output")
        findings = audit(books)
        loaded = {record.value for record in self.before}
        live = [*self.calls, *(record for record in self.commands if record.value not in loaded)]
        log = worker_order(self.topics, self.before, live, books)
        findings += compare(self.topics, log, books)
        if tally.rated + tally.dead.total() > tally.published or duplicates < 0:
            findings.append(Discrepancy("all", "more came out than went in"))
        say("\n[bold]Audit[/bold]")
        for finding in findings:
            say(f"  [red]{finding}[/red]")
        transactions = sum(len(account.ledger) for account in books.accounts.values())
        say(
            f"  {transactions} ledger transactions of {len(books.accounts)} organizations, added up and held against the"
            f" states, the rated calls\n  and `rater simulate` over the same {len(log)} records:"
        )
        say("  [red]they differ[/red]" if findings else "  [green]every balance agrees, to the last millionth[/green]")
        say("\n[bold]Next[/bold]")
        say("  rater demo --keep                  leaves it running to play with")
        say("  rater load rates FILE --dry-run    checks a rate deck of your own")
        say("  rater simulate LOG                 rates a log of yours without Kafka; docs/contract.md says its form")
        return 1 if findings else 0


def _sound(loaded: CheckedFile) -> list[tuple[str, dict[str, Any]]]:
    if loaded.faults:
        raise DemoError(f"a sample file is faulty: {loaded.faults[0]}")
    return loaded.rows


async def _until_interrupted(worker: Worker) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    waits = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(worker.until_ended())]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for waiting in waits:
        waiting.cancel()
