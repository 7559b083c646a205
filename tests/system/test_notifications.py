"""Notifications on a real Kafka and a real mail server: each mail goes out, under one id, though the agent is killed often."""

import asyncio
import email
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from aiosmtpd.smtp import SMTP

from rater.domain.outputs import Notification
from rater.embedded import EmbeddedKafka
from rater.kafka.clients import read_all
from rater.kafka.log import LogRecord
from rater.kafka.topics import Topics
from tests.system.harness import Worker, publish

NOTES = 200
ORGS = 20
KILLS = 6
SEED = 25
TIMEOUT_S = 120.0


class Server:
    """Accepts mails. It refuses one in ten temporarily, and mails to `nobody…` permanently."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self._draw = random.Random(SEED)

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd calls it so
        if envelope.rcpt_tos[0].startswith("nobody"):
            return "550 no such user"
        if self._draw.random() < 0.1:
            return "451 try later"
        self.ids.append(email.message_from_bytes(envelope.content)["message-id"])
        return "250 OK"


@asynccontextmanager
async def serving(server: Server) -> AsyncIterator[int]:
    loop = asyncio.get_running_loop()
    made = await loop.create_server(lambda: SMTP(server, loop=loop), "127.0.0.1", 0)
    try:
        yield made.sockets[0].getsockname()[1]
    finally:
        made.close()


def note(topics: Topics, number: int) -> LogRecord:
    org_id = f"org-{number % ORGS}"
    to = f"nobody{number}@x.example" if number % 20 == 0 else f"a{number}@x.example"
    data = {"balance": "4.10", "threshold": "5.00", "currency": "EUR"}
    made = Notification(f"n:{number}", org_id, f"n:{number}", "balance.low", org_id, [to], "2026-11-24T10:00:00Z", data)
    return LogRecord(topics.notification, 1_790_000_000_000, org_id.encode(), msgspec.json.encode(made))


async def test_every_mail_goes_out_under_one_id_though_the_agent_is_killed(
    kafka: EmbeddedKafka, topics: Topics, tmp_path: Path
) -> None:
    server = Server()
    draw = random.Random(SEED)
    prefix = topics.cdr.removesuffix("telephony.cdr.v1")
    async with serving(server) as port:
        mail = {"RATER_MAIL_HOST": "127.0.0.1", "RATER_MAIL_PORT": str(port), "RATER_MAIL_SECURITY": "none"}
        worker = Worker(
            kafka.bootstrap, topics, prefix, tmp_path, agents="notification", RATER_MAIL_FROM="credit@rater.example", **mail
        )
        try:
            worker.start()
            for part in range(KILLS):
                await publish(kafka.bootstrap, topics, [note(topics, n) for n in range(part, NOTES, KILLS)])
                await asyncio.sleep(draw.uniform(1.0, 2.5))
                worker.kill()
                worker.start()
            results = await until_answered(kafka, topics, worker)
            assert worker.stop() == 0
        finally:
            worker.close()
    nobodies = NOTES // 20
    assert Counter(result["type"] for result in results) == {
        "notification.sent": NOTES - nobodies,
        "notification.failed": nobodies,
    }
    assert Counter(result["notification_id"] for result in results) == {f"n:{n}": 1 for n in range(NOTES)}
    assert len(set(server.ids)) == NOTES - nobodies
    # Mails that were being sent at the moment of a kill are sent again: at most 16 per partition and kill.
    assert len(server.ids) - len(set(server.ids)) <= KILLS * topics.account_partitions * 16


async def until_answered(kafka: EmbeddedKafka, topics: Topics, worker: Worker) -> list[dict[str, Any]]:
    """The results, once there is one for every notification."""
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            worker.check_alive()
            found, _ = await read_all(kafka.bootstrap, [topics.command])
            results = [msgspec.json.decode(record.value or b"") for record in found]
            if len({result["notification_id"] for result in results}) == NOTES:
                return results
            await asyncio.sleep(0.5)
