"""Reads the monitoring files in deploy/ for the tests: rules and dashboards."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
RULES = sorted((ROOT / "deploy" / "prometheus" / "rules").glob("*.yml"))
DASHBOARDS = sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))
RUNBOOKS = ROOT / "docs" / "runbooks"
DOCUMENT = ROOT / "docs" / "metrics.md"

#: Grafana's variables, with the values that a panel gets when everything is selected.
VARIABLES = {"$__rate_interval": "1m", "$agent": ".*"}
_SUFFIXES = ("_bucket", "_count", "_sum")


@dataclass(frozen=True)
class Asked:
    """A PromQL expression, and where it comes from: a file and the title of a panel or the name of a rule."""

    where: str
    expression: str


def rules() -> Iterator[tuple[Path, dict[str, Any]]]:
    """All rules, each with its file."""
    for path in RULES:
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                yield path, rule


def alerts() -> list[dict[str, Any]]:
    return [rule for _, rule in rules() if "alert" in rule]


def recorded() -> set[str]:
    """The metric names that recording rules define."""
    return {rule["record"] for _, rule in rules() if "record" in rule}


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All panels of a dashboard, including those in rows."""
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", ())


def panel_expressions() -> Iterator[Asked]:
    for path in DASHBOARDS:
        for panel in panels(json.loads(path.read_text())):
            for target in panel.get("targets", ()):
                expression = target["expr"]
                for variable, value in VARIABLES.items():
                    expression = expression.replace(variable, value)
                yield Asked(f"{path.name}: {panel['title']}", expression)


def rule_expressions() -> Iterator[Asked]:
    for path, rule in rules():
        yield Asked(f"{path.name}: {rule.get('alert') or rule['record']}", str(rule["expr"]))


def documented() -> dict[str, str]:
    """Metric name → type, from docs/metrics.md."""
    return dict(re.findall(r"^\| `(rater_\w+)` \| (\w+) \|", DOCUMENT.read_text(), re.MULTILINE))


def metrics_in(expression: str) -> set[str]:
    """The rater's metrics in an expression, including those that recording rules define."""
    found = set(re.findall(r"\brater_\w+|\brater:[\w:]+", expression))
    histograms = {name for name, type_ in documented().items() if type_ == "histogram"}
    return {base_of(name, histograms) for name in found}


def base_of(name: str, histograms: set[str]) -> str:
    """A series' metric: a histogram's name without _bucket, _count or _sum; any other name unchanged."""
    for suffix in _SUFFIXES:
        if name.removesuffix(suffix) in histograms:
            return name.removesuffix(suffix)
    return name
