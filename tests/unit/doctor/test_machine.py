"""Findings about this machine (versions, settings, clock), and the output of `rater doctor`."""

from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from pydantic import SecretStr

from rater.bootstrap import AGENTS, make_agents
from rater.cli import cli
from rater.doctor import AREAS, check_settings
from rater.doctor.check_clock import judge_clocks, judge_own_clock
from rater.doctor.check_lag import INPUTS, group_of
from rater.doctor.check_settings import DataFolder, judge_bootstrap, judge_data_folder
from rater.doctor.check_versions import judge_core, judge_libraries, judge_zones
from rater.doctor.findings import DoctorFinding, listed, since
from rater.kafka.topics import load_topics
from rater.settings import Settings

NOW_MS = 1_764_000_000_000
GIB = 1024**3


def codes(findings: list[DoctorFinding]) -> dict[str, str]:
    return {finding.code: finding.severity for finding in findings}


def test_libraries_as_pinned_are_in_order() -> None:
    found = judge_libraries({"aiokafka": "0.14.0", "click": None}, {"aiokafka": "0.14.0", "click": "8.1"}, {"click": "8.1"})
    assert codes(found) == {"versions.pinned": "ok"}


def test_another_version_of_a_pinned_library_is_a_fault() -> None:
    assert codes(judge_libraries({"aiokafka": "0.14.0"}, {"aiokafka": "0.15.0"}, {})) == {"versions.pinned": "fault"}


def test_a_missing_library_is_a_fault() -> None:
    assert codes(judge_libraries({"click": None}, {"click": None}, {})) == {"versions.missing": "fault"}


def test_another_version_than_was_tested_is_a_note() -> None:
    assert codes(judge_libraries({"click": None}, {"click": "8.2"}, {"click": "8.1"}))["versions.not_as_locked"] == "note"


def test_a_core_that_is_not_compiled_is_a_note() -> None:
    assert (judge_core(is_compiled=True).severity, judge_core(is_compiled=False).severity) == ("ok", "note")


def test_missing_time_zone_data_is_a_fault() -> None:
    assert codes(judge_zones(has_zones=False)) == {"versions.no_time_zones": "fault"}


@pytest.mark.parametrize(
    ("free_bytes", "code"),
    [(10 * GIB, "settings.data_dir"), (GIB, "settings.disk_low"), (1000, "settings.disk_full"), (None, None)],
)
def test_the_data_folders_disk_has_room_or_not(free_bytes: int | None, code: str | None) -> None:
    assert [f.code for f in judge_data_folder(DataFolder(Path("/d"), is_writable=True, free_bytes=free_bytes))] == (
        [] if code is None else [code]
    )


def test_a_data_folder_that_cant_be_written_to_is_a_fault() -> None:
    assert codes(judge_data_folder(DataFolder(Path("/d"), is_writable=False, free_bytes=GIB))) == {"settings.data_dir": "fault"}


def test_checking_creates_no_data_folder(tmp_path: Path) -> None:
    check_settings.check(Settings(data_dir=tmp_path / "a" / "b"))
    assert list(tmp_path.iterdir()) == []


def test_settings_are_shown_with_their_source_and_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATER_APP_ID", "mine")
    given = Settings(payment_gateway="stripe", stripe_api_key=SecretStr("sk_live_1"))
    told = check_settings.check(given)[0].what
    assert "app_id=mine (environment)" in told
    assert "stripe_api_key=*** (command line)" in told
    assert "sk_live_1" not in told


def test_an_agent_that_lacks_a_setting_is_a_note_naming_the_setting() -> None:
    notes = [f for f in check_settings.check(Settings()) if f.code == "settings.agent_not_set_up"]
    assert any("RATER_PAYMENT_GATEWAY" in str(f.todo) for f in notes)


@pytest.mark.parametrize("bootstrap", ["127.0.0.1:9092", "localhost:9092", "[::1]:9092"])
def test_plaintext_within_this_machine_is_in_order(bootstrap: str) -> None:
    assert judge_bootstrap(Settings(bootstrap=bootstrap)) == []


def test_plaintext_to_another_machine_is_a_warning_even_if_allowed() -> None:
    away = Settings(bootstrap="kafka.example.com:9092", kafka_plaintext_allowed=True)
    assert codes(judge_bootstrap(away)) == {"settings.plaintext": "warning"}
    assert judge_bootstrap(Settings(bootstrap="kafka.example.com:9093", kafka_security="ssl")) == []


def test_a_clock_behind_a_brokers_is_a_warning_and_by_minutes_a_fault() -> None:
    assert codes(judge_clocks(NOW_MS, [NOW_MS + 5000], [])) == {"clock.behind_broker": "warning"}
    assert codes(judge_clocks(NOW_MS, [NOW_MS - 5, NOW_MS + 120_000], [])) == {"clock.behind_broker": "fault"}


def test_records_from_the_future_are_a_warning() -> None:
    assert codes(judge_clocks(NOW_MS, [NOW_MS - 5], [NOW_MS + 5000])) == {"clock.records_ahead": "warning"}


def test_broker_times_in_the_past_show_that_this_clock_is_not_behind() -> None:
    assert codes(judge_clocks(NOW_MS, [NOW_MS - 90_000], [NOW_MS])) == {"clock.broker": "ok"}


def test_without_a_broker_time_the_clock_is_reported_unknown() -> None:
    assert codes(judge_clocks(NOW_MS, [], [NOW_MS])) == {"clock.unknown": "note"}


def test_if_the_kernel_does_not_know_nothing_is_reported() -> None:
    assert judge_own_clock(is_synchronized=None) == []
    assert codes(judge_own_clock(is_synchronized=False)) == {"clock.not_synchronized": "note"}


def test_durations_and_lists_are_short() -> None:
    assert [since(ms) for ms in (0, 59_000, 61_000, 7_300_000, 200_000_000)] == ["0 s", "59 s", "1 min", "2 h", "2 d"]
    assert listed(["a", "b", "c", "d"]) == "a, b, c and 1 more"


async def test_the_doctor_knows_each_agents_group_and_topics() -> None:
    secret = SecretStr("whsec_" + "a" * 32)
    settings = Settings(
        payment_gateway="webhook", payment_webhook_url="https://x.example/p", payment_webhook_secret=secret,
        notify_webhook_url="https://x.example/n", notify_webhook_secret=secret,
    )  # fmt: skip
    topics = load_topics(account_partitions=settings.partitions)
    for agent, uses in INPUTS.items():
        (app,) = make_agents(settings, [agent])
        (group,) = app.engine.groups
        assert app.conf.id == group_of(settings, agent)
        assert group.topics == tuple(getattr(topics, use) for use in uses)


def test_the_doctor_checks_every_agent() -> None:
    assert set(INPUTS) == set(AGENTS)


def test_if_no_broker_answers_that_is_one_fault_and_the_local_checks_still_run() -> None:
    result = CliRunner().invoke(cli, ["doctor", "--json", "--bootstrap", "127.0.0.1:1"])
    findings = [msgspec.json.decode(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 1
    assert [f["code"] for f in findings if f["severity"] == "fault"] == ["broker.unreachable"]
    assert {f["area"] for f in findings} >= {"versions", "settings"}
    assert [f["area"] for f in findings] == sorted((f["area"] for f in findings), key=AREAS.index)


def test_an_area_that_fails_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(settings: Settings) -> list[DoctorFinding]:
        raise ValueError(f"of {settings.app_id}")

    monkeypatch.setattr(check_settings, "check", fail)
    result = CliRunner().invoke(cli, ["doctor", "--json", "--bootstrap", "127.0.0.1:1"])
    findings = {f["code"]: f for f in map(msgspec.json.decode, result.stdout.splitlines())}
    assert findings["settings.not_looked_at"]["what"] == "the check failed: ValueError of rater"
    assert "versions.pinned" in findings


def test_the_text_names_the_finding_and_what_to_do() -> None:
    result = CliRunner().invoke(cli, ["doctor", "-q", "--bootstrap", "127.0.0.1:1"])
    assert "[broker.unreachable]" in result.output
    assert "→ is Kafka up" in result.output


def test_an_invalid_option_is_a_usage_error() -> None:
    assert CliRunner().invoke(cli, ["doctor", "--prefix", "a b"]).exit_code == 2
