"""The command that voids a rated call."""

from rater.domain import recharge
from rater.domain.account import Account
from rater.domain.commands.context import CommandContext, check_room
from rater.domain.event_writer import Movement, repaying
from rater.domain.messages import CallVoid
from rater.domain.rejection import Refused
from rater.domain.rows import Handled


def void_call(context: CommandContext, account: Account, command: CallVoid) -> None:
    """Void a rated call: return its money to the lots it came from, and its minutes to their pool (rule 19).

    Refused: unknown_call, already_voided, invalid_field.
    """
    event_writer, wallet = context.event_writer, account.wallet
    key = account.call_prefix + command.cdr_id.encode()
    call = context.idempotency.recall(key, event_writer.now_us)
    if call is None:
        raise Refused("unknown_call", f"no rated call {command.cdr_id!r} is remembered")
    if call.voided:
        raise Refused("already_voided", f"call {command.cdr_id!r} was voided before")
    before = wallet.balance
    collected = sum(part.micros for part in call.parts)
    charge = collected + call.overdrawn
    check_room(account, charge)
    if charge:
        given, to_overdraft, repaid = wallet.give_back(
            call.parts, call.overdrawn, f"void:{command.cdr_id}", event_writer.now_us
        )
        movements: list[Movement] = [("wallet", part.micros, part.lot_id) for part in given]
        if to_overdraft:
            movements.append(("wallet", to_overdraft, None))
        movements.append(("usage", -charge, None))
        movements += repaying(repaid)
        assert wallet.balance == before + charge, (wallet.balance, before, charge)
        event_writer.transaction(account, "void", command.cdr_id, movements, command.cdr_id, command.command_id)
    pool = None if call.pool is None else account.pools.get(call.pool)
    if pool is not None:
        pool.used -= call.included_minutes
        assert pool.used >= 0, pool
    context.idempotency.remember(key, Handled(call.digest, call.forget_us, voided=True))
    event_writer.event(
        account,
        "call.voided",
        {
            "cdr_id": command.cdr_id,
            "reason": command.reason,
            "amount": account.text(charge),
            "currency": account.state.currency,
            "included_minutes": call.included_minutes,
            "balance": account.balance_text(),
            "command_id": command.command_id,
        },
    )
    if charge:
        recharge.balance_changed(event_writer, account, before)
