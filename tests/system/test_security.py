"""Brokers with TLS, SCRAM and ACLs: they accept only known users, and each user may do only what its role allows.

Each component works with its own role, and is refused with another role.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka.errors import ClusterAuthorizationFailedError, TopicAuthorizationFailedError

from rater.embedded import ClusterSecurity, EmbeddedKafka
from rater.embedded.security import ADMIN
from rater.kafka.acls import acls_of, grant_acls, load_roles
from rater.kafka.clients import producer, publish_rows, reader
from rater.kafka.connection import Connection
from rater.kafka.topic_admin import apply
from rater.kafka.topics import Topics, load_topics
from rater.settings import Settings

PREFIX = "secured."
PARTITIONS = 2
PASSWORD = "pa55-word-of-"
UP_S = 40.0
MAIL = {"RATER_MAIL_HOST": "127.0.0.1", "RATER_MAIL_FROM": "rater@example.com"}
PAYMENTS = {
    "RATER_PAYMENT_GATEWAY": "webhook",
    "RATER_PAYMENT_WEBHOOK_URL": "http://127.0.0.1:9/charges",
    "RATER_PAYMENT_WEBHOOK_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
}
AGENTS: dict[str, dict[str, str]] = {"rating": {}, "timer": {}, "recharge": PAYMENTS, "notification": MAIL}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a certificate for 127.0.0.1, one for another host, and a password file for each role."""
    folder = tmp_path_factory.mktemp("secured")
    for name, address in (("broker", "IP:127.0.0.1"), ("stranger", "DNS:elsewhere")):
        made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
        made += ["-addext", f"subjectAltName={address}", "-keyout", f"{name}.key", "-out", f"{name}.pem"]
        subprocess.run(made, check=True, capture_output=True, cwd=folder)
    (folder / "broker.both").write_text((folder / "broker.key").read_text() + (folder / "broker.pem").read_text())
    for role in load_roles().values():
        (folder / role.user).write_text(f"{PASSWORD}{role.user}\n")
    (folder / "wrong").write_text("wrong\n")
    return folder


@pytest.fixture(scope="module")
def kafka(folder: Path) -> Iterator[EmbeddedKafka]:
    users = {role.user: PASSWORD + role.user for role in load_roles().values()}
    guard = ClusterSecurity(folder / "broker.both", folder / "broker.pem", {ADMIN: PASSWORD + ADMIN, **users})
    with EmbeddedKafka(folder / "kafka", security=guard) as running:
        asyncio.run(grant(running.bootstrap, folder))
        yield running


@pytest.fixture(scope="module")
def topics() -> Topics:
    return load_topics(PREFIX, PARTITIONS)


async def grant(bootstrap: str, folder: Path) -> None:
    """Grant every role its rights, then create the topics as administrator."""
    (folder / ADMIN).write_text(PASSWORD + ADMIN)
    brokers = settings_of(bootstrap, folder, ADMIN).brokers
    for role in load_roles().values():
        await grant_acls(brokers, role.user, acls_of(role, load_topics(PREFIX, PARTITIONS), "rater"))
    await apply(connection(bootstrap, folder, "administrator"), load_topics(PREFIX, PARTITIONS))


def environment(bootstrap: str, folder: Path, user: str, **more: str) -> dict[str, str]:
    return {
        "RATER_BOOTSTRAP": bootstrap,
        "RATER_KAFKA_SECURITY": "sasl_ssl",
        "RATER_KAFKA_CA_FILE": str(folder / "broker.pem"),
        "RATER_KAFKA_USER": user,
        "RATER_KAFKA_PASSWORD_FILE": str(folder / user),
        "RATER_TOPIC_PREFIX": PREFIX,
        "RATER_PARTITIONS": str(PARTITIONS),
        "RATER_BROKER_TIMEOUT_MS": "5000",
        **more,
    }


def settings_of(bootstrap: str, folder: Path, user: str) -> Settings:
    return Settings(
        bootstrap=bootstrap,
        kafka_security="sasl_ssl",
        kafka_ca_file=folder / "broker.pem",
        kafka_user=user,
        kafka_password=(folder / user).read_text().strip(),  # type: ignore[arg-type]
    )


def connection(bootstrap: str, folder: Path, role: str) -> Connection:
    return settings_of(bootstrap, folder, load_roles()[role].user).brokers


@asynccontextmanager
async def worker(agents: str, log: Path, given: Mapping[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    data = {"RATER_DATA_DIR": str(log.parent / "data"), "RATER_HTTP_PORT": "0"}
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "rater", "worker", "--agents", agents),
            env={**os.environ, **given, **data},
            stdout=out,
            stderr=out,
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def until_said(process: asyncio.subprocess.Process, log: Path, *wanted: str) -> None:
    """Wait until the log contains all of `wanted`."""
    deadline_s = time.monotonic() + UP_S
    while not all(word in log.read_text() for word in wanted):
        assert process.returncode is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline_s, log.read_text()[-3000:]
        await asyncio.sleep(0.05)


def rater(*arguments: str, given: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rater", *arguments]
    return subprocess.run(command, env={**os.environ, **given}, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("agent", AGENTS)
async def test_an_agent_works_with_its_own_role(kafka: EmbeddedKafka, folder: Path, tmp_path: Path, agent: str) -> None:
    given = environment(kafka.bootstrap, folder, load_roles()[agent].user, **AGENTS[agent])
    log = tmp_path / "log"
    async with worker(agent, log, given) as process:
        await until_said(process, log, *(f"{agent}[{partition}]: open" for partition in range(PARTITIONS)))
    assert process.returncode == 0
    assert PASSWORD not in log.read_text()


@pytest.mark.parametrize(
    ("agent", "role"), [("rating", "timer"), ("timer", "switch"), ("recharge", "rating"), ("notification", "billing")]
)
async def test_an_agent_with_anothers_role_is_refused_and_says_so(
    kafka: EmbeddedKafka, folder: Path, tmp_path: Path, agent: str, role: str
) -> None:
    given = environment(kafka.bootstrap, folder, load_roles()[role].user, **AGENTS[agent])
    log = tmp_path / "log"
    async with worker(agent, log, given) as process:
        assert await asyncio.wait_for(process.wait(), UP_S) == 1, log.read_text()[-3000:]
    (last,) = [line for line in map(json.loads, log.read_text().splitlines()) if line["level"] == "critical"]
    assert "Authorization" in last["event"]
    assert "Traceback" not in log.read_text()


async def test_a_call_is_rated_and_a_command_answered_with_each_component_in_its_role(
    kafka: EmbeddedKafka, folder: Path, tmp_path: Path, topics: Topics
) -> None:
    log = tmp_path / "log"
    org = "contoso"
    as_rating = environment(kafka.bootstrap, folder, load_roles()["rating"].user)
    as_administrator = environment(kafka.bootstrap, folder, load_roles()["administrator"].user)
    put = {"name": org, "country": "US", "currency": "USD", "offer": "commercial"}
    command = {"command_id": "1", "type": "organization.put", "org_id": org, "issued_at": "2026-01-01T00:00:00Z", **put}
    await publish_rows(connection(kafka.bootstrap, folder, "administrator"), topics.command, [(org, command)])
    call = {
        "cdr_id": "call-1",
        "org_id": org,
        "call_type": "user_in",
        "caller": "+14255550100",
        "callee": "+14255550101",
        "answered_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "duration_ms": 60_000,
    }
    async with worker("rating", log, as_rating) as process:
        await until_said(process, log, "rating[0]: open", "rating[1]: open")
        await publish_rows(connection(kafka.bootstrap, folder, "switch"), topics.cdr, [(org, call)])
        purchase = ("--amount", "25", "--currency", "USD", "--reference", "po-1")
        added = await asyncio.to_thread(rater, "funds", "add", org, *purchase, given=as_administrator)
        assert added.returncode == 0, added.stderr + added.stdout
        async with reader(connection(kafka.bootstrap, folder, "billing"), [topics.rated]) as consumer:
            record = await asyncio.wait_for(consumer.getone(), UP_S)
    assert msgspec.json.decode(record.value)["cdr_id"] == "call-1"
    assert process.returncode == 0


async def test_a_switch_can_not_publish_commands_and_billing_can_not_publish_at_all(
    kafka: EmbeddedKafka, folder: Path, topics: Topics
) -> None:
    switch = connection(kafka.bootstrap, folder, "switch")
    async with producer(switch) as out:
        with pytest.raises(TopicAuthorizationFailedError):
            await out.send_and_wait(topics.command, b"{}", key=b"contoso")
    async with reader(switch, [topics.state]) as consumer:
        assert consumer.assignment()
    with pytest.raises(ClusterAuthorizationFailedError):  # a user that may not write any topic gets no producer
        async with producer(connection(kafka.bootstrap, folder, "billing")):
            pass


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"RATER_KAFKA_PASSWORD_FILE": "wrong"}, "Authentication"),
        ({"RATER_KAFKA_CA_FILE": "stranger.pem"}, "CERTIFICATE_VERIFY_FAILED"),
    ],
)
async def test_a_user_that_is_refused_is_told_why_at_once(
    kafka: EmbeddedKafka, folder: Path, tmp_path: Path, wrong: dict[str, str], said: str
) -> None:
    given = environment(kafka.bootstrap, folder, load_roles()["rating"].user)
    given |= {name: str(folder / file) for name, file in wrong.items()}
    log = tmp_path / "log"
    async with worker("rating", log, given) as process:
        assert await asyncio.wait_for(process.wait(), UP_S) == 1
    (last,) = [line for line in map(json.loads, log.read_text().splitlines()) if line["level"] == "critical"]
    assert said in last["event"]
    assert "does not let us in" in last["event"]
    failed = await asyncio.to_thread(rater, "account", "contoso", given=given)
    assert failed.returncode == 1
    assert said in failed.stderr
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize("role", ["monitor", "rating", "timer", "switch"])
async def test_the_doctor_knows_its_users_role_and_claims_nothing_about_what_that_user_may_not_see(
    kafka: EmbeddedKafka, folder: Path, role: str
) -> None:
    given = environment(kafka.bootstrap, folder, load_roles()[role].user)
    examined = await asyncio.to_thread(rater, "doctor", "--json", given=given)
    findings = {finding["code"]: finding for finding in map(json.loads, examined.stdout.splitlines())}
    assert role in findings["acl.roles"]["what"].partition(": ")[2].split(", ")
    assert not [code for code in findings if code.endswith((".not_looked_at", ".not_allowed", ".missing"))]
    assert ("catalog.unreadable" in findings) == (role not in ("monitor", "rating"))
    assert PASSWORD not in examined.stdout + examined.stderr


async def test_the_doctor_says_why_it_is_refused(kafka: EmbeddedKafka, folder: Path) -> None:
    given = environment(kafka.bootstrap, folder, load_roles()["monitor"].user)
    refused = await asyncio.to_thread(
        rater, "doctor", "-q", given={**given, "RATER_KAFKA_PASSWORD_FILE": str(folder / "wrong")}
    )
    assert refused.returncode == 1
    assert "Authentication failed" in refused.stdout
    assert "[broker.unreachable]" in refused.stdout


async def test_settings_process_list_and_log_show_no_secret(
    kafka: EmbeddedKafka, folder: Path, tmp_path: Path, topics: Topics
) -> None:
    del topics
    given = environment(kafka.bootstrap, folder, load_roles()["recharge"].user, **PAYMENTS)
    log = tmp_path / "log"
    async with worker("recharge", log, {**given, "RATER_HTTP_TOKEN": "correct-horse-battery"}) as process:
        await until_said(process, log, "recharge[0]: open")
        seen = Path(f"/proc/{process.pid}/cmdline").read_text() + log.read_text()
    settings: Any = settings_of(kafka.bootstrap, folder, load_roles()["recharge"].user)
    seen += f"{settings!r} {settings} {settings.brokers!r}"
    assert PASSWORD not in seen
    assert "whsec_Mf" not in seen
    assert "correct-horse" not in seen
