"""The second opinion: runs the same input through `rater simulate`, in the order in which the worker took it.

Kafka keeps no order between the command topic and the CDR topic. For money the order matters, and the ledger shows it: there, a
command that moved money stands between two charged calls, so it goes between them in the log too. Calls that moved no money
don't depend on such commands. Commands carried out before the first call come first.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import msgspec

from rater.audit.books import AccountBooks, Books, Discrepancy, Message
from rater.kafka.log import LogRecord
from rater.kafka.topics import Topics
from rater.simulation import simulate


def worker_order(topics: Topics, before: Iterable[LogRecord], live: Sequence[LogRecord], books: Books) -> list[LogRecord]:
    """Put the input in the worker's order, as a log for `compare`.

    `before`: the catalog and the commands carried out before the first call. `live`: calls and commands since, in order within
    each topic.
    """
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
        # For each charged call, the commands that moved money since the charged call before it.
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
    # Commands that moved no money, or are for an account without calls. Their place makes no difference to any balance.
    return [*ordered, *commands.values()]


def compare(topics: Topics, log: Iterable[LogRecord], books: Books) -> list[Discrepancy]:
    """Compare the worker's `books` with a simulation of `log`: ledger, rated calls and balances of each organization."""
    second = Books.of(topics, simulate(topics, log))
    discrepancies = []
    for org_id in sorted({*books.accounts, *second.accounts}):
        one, other = books.accounts[org_id], second.accounts[org_id]
        for name in ("balance", "overdraft", "lots", "pools"):
            worker = None if one.state is None else one.state[name]
            simulated = None if other.state is None else other.state[name]
            if worker != simulated:
                discrepancies.append(Discrepancy(org_id, f"{name} is {worker}, in the simulation {simulated}"))
        if [t["postings"] for t in one.ledger] != [t["postings"] for t in other.ledger]:
            discrepancies.append(Discrepancy(org_id, "the ledger differs from the simulation"))
        if len(one.rated) != len(other.rated):
            discrepancies.append(Discrepancy(org_id, f"{len(one.rated)} rated calls, in the simulation {len(other.rated)}"))
        elif _calls(one) != _calls(other):
            discrepancies.append(Discrepancy(org_id, "the rated calls differ from the simulation"))
    return discrepancies


def _calls(account: AccountBooks) -> list[Message]:
    """The rated calls without `balance_after`: a free call may come before or after a command that changes the balance."""
    return [{name: value for name, value in call.items() if name != "balance_after"} for call in account.rated]


def _cdr_id(record: LogRecord) -> str:
    try:
        return str(msgspec.json.decode(record.value or b"null")["cdr_id"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return ""
