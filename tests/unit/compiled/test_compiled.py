"""The compiled core is the core: same source, same results, never a stale build."""

import ast
import base64
import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from rater import compiled
from rater.kafka.log import LogRecord
from rater.kafka.topics import load_topics
from tests.system.random_log import RandomLog

SEEDS = range(3)


@pytest.mark.skipif(not compiled.built().is_dir(), reason="nothing is compiled here, see `make setup`")
@pytest.mark.parametrize("seed", SEEDS)
def test_compiled_and_interpreted_give_the_same_bytes(seed: int, tmp_path: Path) -> None:
    random_log = RandomLog(load_topics(), seed, cdrs=3000, organizations=10)
    log = tmp_path / "log.jsonl"
    log.write_bytes(b"\n".join(line(record) for record in [*random_log.catalog, *random_log.traffic]))
    interpreted, native = simulated(log, pure=True), simulated(log, pure=False)
    assert native == interpreted
    assert native.count(b"\n") > 3000


@pytest.mark.skipif(not compiled.built().is_dir(), reason="nothing is compiled here, see `make setup`")
def test_the_compiled_core_is_used_unless_it_is_declined() -> None:
    assert uses_compiled(pure=False)
    assert not uses_compiled(pure=True)


def test_a_core_compiled_from_other_source_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    domain = tmp_path / "domain"
    shutil.copytree(compiled.DOMAIN, domain)
    before = compiled.built()
    monkeypatch.setattr(compiled, "DOMAIN", domain)
    assert compiled.built() == before
    (domain / "money.py").write_text((domain / "money.py").read_text() + "\n")
    assert compiled.built() != before
    assert not compiled.use()


@pytest.mark.parametrize("module", compiled.MODULES)
def test_no_compiled_module_defines_a_stored_or_sent_class(module: str) -> None:
    """mypyc drops the options of such a class, so its rows would have another form."""
    tree = ast.parse((compiled.DOMAIN / f"{module}.py").read_text())
    bases = [ast.unparse(base) for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for base in node.bases]
    assert not [base for base in bases if "Struct" in base or "Command" in base]


def line(record: LogRecord) -> bytes:
    """A record as a line of a log, whether its value is JSON or not."""
    key = None if record.key is None else record.key.decode()
    fields = {"topic": record.topic, "timestamp": record.timestamp, "key": key}
    return msgspec.json.encode(fields | {"value_base64": base64.b64encode(record.value or b"").decode()})


def simulated(log: Path, pure: bool) -> bytes:
    command = [sys.executable, "-m", "rater", "simulate", str(log)]
    return subprocess.run(command, env=environment(pure), stdout=subprocess.PIPE, timeout=60, check=True).stdout


def uses_compiled(pure: bool) -> bool:
    command = [sys.executable, "-c", "import rater.domain.core as core; print(core.__file__)"]
    file = subprocess.run(command, env=environment(pure), stdout=subprocess.PIPE, timeout=60, check=True, text=True).stdout
    return not file.rstrip().endswith(".py")


def environment(pure: bool) -> dict[str, str]:
    return {**os.environ, "RATER_PURE": "1" if pure else "0"}
