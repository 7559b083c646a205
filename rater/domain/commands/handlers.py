"""The handler of each command type."""

from collections.abc import Callable
from typing import Any

from rater.domain.account import Account
from rater.domain.commands.context import CommandContext
from rater.domain.commands.deliveries import note_delivery
from rater.domain.commands.funds import add_funds, adjust_funds, expire_funds, warn_of_expiry
from rater.domain.commands.organizations import put_number, put_organization, put_user, remove_number, remove_user
from rater.domain.commands.recharges import fail_recharge, put_auto_recharge, retry_recharge, succeed_recharge
from rater.domain.commands.voids import void_call
from rater.domain.messages import (
    AutoRechargePut,
    CallVoid,
    Command,
    FundsAdd,
    FundsAdjust,
    FundsExpire,
    FundsWarn,
    NotificationFailed,
    NotificationSent,
    NumberPut,
    NumberRemove,
    OrganizationPut,
    RechargeFailed,
    RechargeRetry,
    RechargeSucceeded,
    UserPut,
    UserRemove,
)

HANDLERS: dict[type[Command], Callable[[CommandContext, Account, Any], None]] = {
    OrganizationPut: put_organization,
    UserPut: put_user,
    UserRemove: remove_user,
    NumberPut: put_number,
    NumberRemove: remove_number,
    FundsAdd: add_funds,
    FundsAdjust: adjust_funds,
    FundsExpire: expire_funds,
    FundsWarn: warn_of_expiry,
    AutoRechargePut: put_auto_recharge,
    RechargeSucceeded: succeed_recharge,
    RechargeFailed: fail_recharge,
    RechargeRetry: retry_recharge,
    NotificationSent: note_delivery,
    NotificationFailed: note_delivery,
    CallVoid: void_call,
}
COMMAND_TYPES = frozenset(str(command.__struct_config__.tag) for command in HANDLERS)
