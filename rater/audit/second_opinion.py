"""The second opinion: the same input through `rater simulate`, in the order the worker really took it.

Kafka keeps no order between the command topic and the CDR topic. Where it matters, for money, the ledger tells: a command
that moved money stands between two charged calls there, and it is put there in the log. Calls that moved no money are
indifferent to such commands. Commands that had been carried out before the first call come first.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import msgspec

from rater.audit.books import Account, Books, Finding, Message
from rater.kafka.log import LogRecord
from rater.kafka.topics import Topics
from rater.simulation import simulate


def worker_order(topics: Topics, before: Iterable[LogRecord], live: Sequence[LogRecord], books: Books) -> list[LogRecord]:
    """`before`: catalog and commands carried out before the first call. `live`: calls and commands since, any topic order."""
    commands: dict[tuple[str, str], LogRecord] = {}
    ordered = list(before)
    calls: dict[str, list[LogRecord]] = defaultdict(list)
    for record in live:
        key = (record.key or b"").decode(errors="replace")
        if record.topic == topics.command:
            commands[key, msgspec.json.decode(record.value or b"null")["command_id"]] = record
        else:
            calls[key].append(record)
    for org_id, records in calls.items():
        # Per charged call: the commands that moved money since the charged call before it.
        ahead: dict[str, list[LogRecord]] = {}
        waiting: list[LogRecord] = []
        account = books.accounts.get(org_id)
        for transaction in [] if account is None else account.ledger:
            if transaction["kind"] == "charge":
                ahead[transaction["cdr_id"]], waiting = waiting, []
            elif (command := commands.pop((org_id, transaction.get("command_id", "")), None)) is not None:
                waiting.append(command)
        for record in records:
            ordered += ahead.pop(_cdr_id(record), [])
            ordered.append(record)
        ordered += waiting
    # What moved no money, or not on an account with calls: where it stands makes no difference to any balance.
    return [*ordered, *commands.values()]


def compare(topics: Topics, log: Iterable[LogRecord], books: Books) -> list[Finding]:
    """Ledger, rated calls and balances of the worker against those of the simulation, organization by organization."""
    second = Books.of(topics, simulate(topics, log))
    findings = []
    for org_id in sorted({*books.accounts, *second.accounts}):
        one, other = books.accounts[org_id], second.accounts[org_id]
        for name in ("balance", "overdraft", "lots", "pools"):
            worker = None if one.state is None else one.state[name]
            simulated = None if other.state is None else other.state[name]
            if worker != simulated:
                findings.append(Finding(org_id, f"{name} is {worker}, simulate says {simulated}"))
        if [t["postings"] for t in one.ledger] != [t["postings"] for t in other.ledger]:
            findings.append(Finding(org_id, "the ledger is not what simulate says"))
        if len(one.rated) != len(other.rated):
            findings.append(Finding(org_id, f"{len(one.rated)} rated calls, simulate says {len(other.rated)}"))
        elif _calls(one) != _calls(other):
            findings.append(Finding(org_id, "the rated calls are not what simulate says"))
    return findings


def _calls(account: Account) -> list[Message]:
    """The rated calls, but for the balance beside them: a free call may stand on either side of a command."""
    return [{name: value for name, value in call.items() if name != "balance_after"} for call in account.rated]


def _cdr_id(record: LogRecord) -> str:
    try:
        return str(msgspec.json.decode(record.value or b"null")["cdr_id"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return ""
