"""The operator's command lines: faults are reported before anything is published."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from rater.cli import cli

FUNDS = ["--currency", "USD", "--reference", "r"]
AUTO = ["--trigger", "10", "--amount", "50", "--payment-method", "card"]
SETTINGS = ["--name", "n", "--country", "US", "--offer", "commercial"]
NO_KAFKA = ["--bootstrap", "127.0.0.1:1"]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, [*arguments])


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["funds", "add", "contoso"], "Missing option"),
        (["funds", "add", "contoso", "--amount", "5,00", *FUNDS], "amount"),
        (["funds", "add", "contoso", "--amount", "1e3", *FUNDS], "amount"),
        (["funds", "add", "contoso", "--amount", "5", "--currency", "XXQ", "--reference", "r"], "not in ISO 4217"),
        (["funds", "add", "contoso", "--amount", "5", *FUNDS, "--channel", "shop"], "--channel"),
        (["funds", "add", "x" * 129, "--amount", "5", *FUNDS], "org_id"),
        (["funds", "adjust", "contoso", "--amount", "-0.0000001", "--reason", "r"], "amount"),
        (["funds", "add", "contoso", "--amount", "5", *FUNDS, "--timeout", "0"], "--timeout"),
        (["funds", "add", "contoso", "--amount", "5", *FUNDS, "--command-id", "x" * 129], "command_id"),
        (["auto-recharge", "set", "contoso", *AUTO, "--max-per-day", "0"], "--max-per-day"),
        (["auto-recharge", "set", "contoso", *AUTO, "--max-per-month", "lots"], "max_amount_per_month"),
        (["users", "set", "contoso"], "either USER or --file"),
        (["users", "set", "contoso", "ann"], "--country is missing"),
        (["users", "set", "contoso", "ann", "--country", "usa"], "usage_country"),
        (["users", "set", "contoso", "ann", "--file", __file__], "either USER or --file"),
        (["users", "set", "contoso", "--country", "US", "--file", __file__], "put country and licences in the file"),
        (["users", "remove", "contoso"], "either USER or --file"),
        (["users", "list", "contoso", "--csv", "--json"], "either --csv or --json"),
        (["numbers", "set", "contoso", "14255550100", "--kind", "service"], "number"),
        (["numbers", "set", "contoso", "+14255550100", "--kind", "fax"], "--kind"),
        (["call", "void", "contoso"], "Missing argument"),
        (["call", "void", "contoso", "x"], "--reason"),
        (["organization", "set", "contoso", *SETTINGS, "--currency", "usd"], "currency"),
        (["account"], "Missing argument"),
    ],
)
def test_a_faulty_command_line_exits_with_2_and_names_the_fault(arguments: list[str], fault: str) -> None:
    result = run(*arguments)
    assert (result.exit_code, fault in result.output) == (2, True), result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["funds", "add", "contoso", "--amount", "5", *FUNDS],
        ["users", "list", "contoso"],
        ["numbers", "list", "contoso"],
        ["account", "contoso"],
    ],
)
def test_an_unreachable_kafka_is_a_failure_that_names_its_address(arguments: list[str]) -> None:
    result = run(*arguments, *NO_KAFKA)
    assert (result.exit_code, "Kafka at 127.0.0.1:1" in result.output) == (1, True), result.output


def test_a_file_with_a_fault_exits_with_1_and_publishes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "users.csv"
    file.write_text("user_id,usage_country\nann,US\nbob,nowhere\n")
    result = run("users", "set", "contoso", "--file", str(file), *NO_KAFKA)
    assert (result.exit_code, "line 3, column 2: " in result.output) == (1, True), result.output
    assert "faults: 1; nothing was published" in result.output


@pytest.mark.parametrize("group", ["account", "funds", "auto-recharge", "users", "numbers", "call", "organization"])
def test_every_group_has_help(group: str) -> None:
    result = run(group, "--help")
    assert (result.exit_code, "Usage: " in result.output) == (0, True)
