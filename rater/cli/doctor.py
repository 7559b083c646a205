"""`rater doctor`: finds what is wrong and says what to do about it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from itertools import groupby

import click
import msgspec

from rater.cli.options import bootstrap_option, json_option, prefix_option, settings_with
from rater.doctor import DoctorFinding, Severity, examine

_COLOURS = {"ok": "green", "note": "cyan", "warning": "yellow", "fault": "red"}
_WIDTH = max(map(len, _COLOURS))
_TOLD: tuple[Severity, ...] = ("fault", "warning", "note")


@click.command(short_help="Find what is wrong, and what to do about it.")
@click.option("--quiet", "-q", is_flag=True, help="Show only warnings and faults.")
@json_option
@bootstrap_option
@prefix_option
def doctor(quiet: bool, as_json: bool, bootstrap: str | None, topic_prefix: str | None) -> None:
    """Check brokers, versions, settings, topics, rights, lag, catalog and clocks. Changes nothing.

    If there is a fault, the exit code is 1; notes and warnings don't count. Run it where a worker runs, with the worker's
    settings, so that it sees what the worker sees.

    \b
    Examples:
      rater doctor
      rater doctor --json | jq 'select(.severity == "fault")'
    """
    settings = settings_with(bootstrap=bootstrap, topic_prefix=topic_prefix)
    findings = asyncio.run(examine(settings))
    shown = [finding for finding in findings if not quiet or finding.severity in ("warning", "fault")]
    if as_json:
        for finding in shown:
            click.echo(msgspec.json.encode({"area": finding.area, **msgspec.to_builtins(finding)}).decode())
    else:
        _show(shown)
    click.echo(_summary(findings), err=as_json)
    if any(finding.severity == "fault" for finding in findings):
        raise SystemExit(1)


def _show(findings: Sequence[DoctorFinding]) -> None:
    for area, found in groupby(findings, key=lambda finding: finding.area):
        click.secho(area, bold=True)
        for finding in found:
            said = click.style(f"{finding.severity:<{_WIDTH}}", fg=_COLOURS[finding.severity])
            code = "" if finding.severity == "ok" else click.style(f"  [{finding.code}]", dim=True)
            click.echo(f"  {said}  {finding.what}{code}")
            if finding.todo is not None and finding.severity != "ok":
                click.echo(f"  {'':<{_WIDTH}}  → {finding.todo}")


def _summary(findings: Sequence[DoctorFinding]) -> str:
    counts = Counter(finding.severity for finding in findings)
    told = [f"{counts[severity]} {severity}{'' if counts[severity] == 1 else 's'}" for severity in _TOLD if counts[severity]]
    return ", ".join(told) or "all is well"
