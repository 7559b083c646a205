"""Adapters may import the domain and each other; only `stripe_events`, which publishes commands, may use `rater.kafka`."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import rater

PACKAGE = Path(rater.__file__).parent
ADAPTERS = sorted((PACKAGE / "adapters").rglob("*.py"))
PUBLISHES_TO_KAFKA = "rater.adapters.payments.stripe_events"
ALLOWED = ("rater.adapters", "rater.domain")
NEVER_LOADED = ("rater.agents", "rater.simulation", "rater.engine", "rater.cli", "rater.bootstrap", "rater.settings")


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path) -> set[str]:
    """The modules of ours that a file imports."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return {name for name in names if name == "rater" or name.startswith("rater.")}


@pytest.mark.parametrize("path", ADAPTERS, ids=name_of)
def test_an_adapter_imports_only_the_domain_and_adapters(path: Path) -> None:
    allowed = (*ALLOWED, "rater.kafka") if name_of(path) == PUBLISHES_TO_KAFKA else ALLOWED
    assert [name for name in imported(path) if not f"{name}.".startswith(tuple(f"{room}." for room in allowed))] == []


def test_no_adapter_loads_the_agents_the_engine_or_the_simulation() -> None:
    code = f"import importlib, sys\nfor name in {[name_of(path) for path in ADAPTERS]}: importlib.import_module(name)\n"
    code += "print('\\n'.join(name for name in sys.modules if name.startswith('rater')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.splitlines()
    assert set(map(name_of, ADAPTERS)) <= set(loaded)
    assert [name for name in loaded if f"{name}.".startswith(tuple(f"{room}." for room in NEVER_LOADED))] == []
