"""The layout's promises, held by machine: what may import what, and what must not appear."""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rater.kafka.topics import Topic, load_topics
from rater.resources import schemas_dir

ROOT = Path(__file__).parent.parent
LINES_MAX = 500
DOMAIN = sorted((ROOT / "rater" / "domain").rglob("*.py"))
CODE = sorted(path for path in (ROOT / "rater").rglob("*.py") if "built" not in path.parts)
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in CODE}
LINES_A_FUNCTION_MAX = 70
PARAMETERS_MAX = 7  # self and cls are not counted
#: Functions over a limit, each with its reason.
LONG_FUNCTIONS: dict[str, str] = {}
MANY_PARAMETERS: dict[str, str] = {
    "rater/domain/rated_calls.py:rated_call": "one for each field of the message, by name",
}
#: Classes that share a name because they are the same thing on two sides of a wall, each with its reason.
SHARED_NAMES: dict[str, str] = {
    "Record": "an input record: the domain and the engine each say what they need of it, and neither may import the other",
}
# In the standard library, but with a clock, a die or the outside world in it.
IMPURE = frozenset(
    {
        "asyncio",
        "concurrent",
        "http",
        "io",
        "logging",
        "multiprocessing",
        "os",
        "pathlib",
        "random",
        "secrets",
    }
    | {"socket", "ssl", "subprocess", "threading", "time", "urllib", "uuid"}
)
CLOCKS = frozenset({"now", "today", "utcnow"})
# What surrounds a checkout on the machine it was written on is no business of the product.
OUTSIDE = re.compile(r"(\.\./|(?<![\w./-]))shared" + r"/|(?<![\w.])/work" + r"/")
TEXT = frozenset({"", ".cfg", ".json", ".md", ".py", ".toml", ".txt", ".yaml", ".yml"})
SKIPPED = frozenset({".git", ".hypothesis", ".venv", ".tools", "__pycache__", "dist"})


ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()


def rooms() -> dict[str, set[str]]:
    """Room → the rooms it may import, from the table in docs/architecture.md."""
    found: dict[str, set[str]] = {}
    for row in ARCHITECTURE.split("| room |")[1].split("\n\n")[0].splitlines()[2:]:
        room, _, allowed = (cell.strip() for cell in row.strip().strip("|").split("|"))
        found[room.strip("`")] = set(found) if allowed == "everything above" else set(filter(None, allowed.split(", ")))
    return found


ROOMS = rooms()


def room_of(module: str) -> str:
    """The room a module is in; "" for the package itself."""
    return module.split(".")[1] if "." in module else ""


def direct_imports(module: str) -> set[str]:
    """Modules of ours that a module imports, with the rooms around them, whose `__init__` runs too."""
    found: set[str] = set()
    for name in imports(MODULES[module]):
        parts = name.split(".")
        found |= {".".join(parts[:length]) for length in range(2, len(parts) + 1)}
    return (found & MODULES.keys()) - {module}


def reachable(module: str) -> dict[str, list[str]]:
    """Every module of ours that is loaded with a module → the chain of imports that leads there."""
    chains = {module: [module]}
    waiting = [module]
    while waiting:
        at = waiting.pop()
        for name in IMPORTS[at] - chains.keys():
            chains[name] = [*chains[at], name]
            waiting.append(name)
    return chains


def identify(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", DOMAIN, ids=identify)
def test_the_domain_imports_only_the_pure_standard_library_msgspec_and_itself(path: Path) -> None:
    outward = [
        name
        for name in imports(path)
        if not (
            name.split(".")[0] == "msgspec"
            or name == "rater.domain"
            or name.startswith("rater.domain.")
            or (name.split(".")[0] in sys.stdlib_module_names and name.split(".")[0] not in IMPURE)
        )
    ]
    assert not outward


@pytest.mark.parametrize("path", DOMAIN, ids=identify)
def test_the_domain_knows_neither_floats_nor_clocks_nor_waiting(path: Path) -> None:
    assert list(impurities(path)) == []


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_room_imports_only_what_architecture_says_also_through_others(room: str) -> None:
    allowed = ROOMS[room] | {room}
    for module, path in MODULES.items():
        if room_of(module) == room:
            beyond = {name: chain for name, chain in reachable(module).items() if room_of(name) not in allowed}
            assert not beyond, f"{identify(path)}: {' -> '.join(next(iter(beyond.values())))}"


def test_architecture_lists_every_room() -> None:
    assert {room_of(module) for module in MODULES} - {"", "__main__"} == set(ROOMS)


@pytest.mark.parametrize("path", CODE, ids=identify)
def test_functions_are_short_and_take_few_parameters(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            place = f"{identify(path)}:{node.name}"
            lines = (node.end_lineno or 0) - node.lineno + 1
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            parameters = [argument for argument in given if argument.arg not in ("self", "cls")]
            assert lines <= LINES_A_FUNCTION_MAX or place in LONG_FUNCTIONS, f"{place} has {lines} lines"
            assert len(parameters) <= PARAMETERS_MAX or place in MANY_PARAMETERS, f"{place} has {len(parameters)} parameters"


def test_every_exception_to_the_limits_is_still_needed() -> None:
    names = {
        f"{identify(path)}:{node.name}"
        for path in CODE
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {*LONG_FUNCTIONS, *MANY_PARAMETERS} <= names


def test_no_two_classes_share_a_name() -> None:
    places: dict[str, list[str]] = {}
    for path in CODE:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(identify(path))
    assert {name: found for name, found in places.items() if len(found) > 1 and name not in SHARED_NAMES} == {}


@pytest.mark.parametrize("topic", load_topics().definitions, ids=lambda topic: topic.name)
def test_every_topic_has_a_schema(topic: Topic) -> None:
    if topic.schema is None:
        assert topic.written_by == "rater", "only what is nobody else's to read may go without"
    else:
        schema = json.loads((schemas_dir() / topic.schema).read_text())
        assert schema["$schema"].startswith("https://json-schema.org/")


@pytest.mark.parametrize("path", CODE, ids=identify)
def test_no_module_is_too_long_to_be_read_top_down(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LINES_MAX


def test_nothing_refers_to_files_outside_the_project() -> None:
    found = [
        f"{identify(path)}:{number}"
        for path in texts(ROOT)
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if OUTSIDE.search(line)
    ]
    assert found == []


GUARANTEES = (ROOT / "docs" / "guarantees.md").read_text()
NAMED_TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


@pytest.mark.parametrize(("file", "name"), sorted(set(NAMED_TEST.findall(GUARANTEES))))
def test_a_test_that_a_guarantee_names_exists(file: str, name: str) -> None:
    tree = ast.parse((ROOT / file).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("section", GUARANTEES.split("\n## ")[1:], ids=lambda section: section.splitlines()[0])
def test_every_guarantee_names_a_test(section: str) -> None:
    assert NAMED_TEST.search(section)


@pytest.mark.parametrize(
    "line",
    ["see ../shared" + "/x.md", "in shared" + "/x.md", "cd /work" + "/main"],
    ids=["up", "bare", "root"],
)
def test_a_reference_to_the_outside_is_recognised(line: str) -> None:
    assert OUTSIDE.search(line)


@pytest.mark.parametrize("code", ["x = float(y)", "x = 0.5", "x = 1 / 2", "x = datetime.now(UTC)", "async def f(): pass"])
def test_an_impurity_is_recognised(code: str, tmp_path: Path) -> None:
    (tmp_path / "impure.py").write_text(code)
    assert list(impurities(tmp_path / "impure.py"))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


IMPORTS = {module: direct_imports(module) for module in MODULES}


def impurities(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Name(id="float"):
                yield f"{node.lineno}: float"
            case ast.Constant(value=float()):
                yield f"{node.lineno}: a float literal"
            case ast.BinOp(op=ast.Div()) | ast.AugAssign(op=ast.Div()):
                yield f"{node.lineno}: a division that makes floats"
            case ast.Attribute(attr=attribute) if attribute in CLOCKS:
                yield f"{node.lineno}: a clock, {attribute}"
            case ast.AsyncFunctionDef() | ast.Await():
                yield f"{node.lineno}: waiting"


def texts(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name in SKIPPED or path.name.endswith("_cache"):
            continue
        if path.is_dir():
            yield from texts(path)
        elif path.suffix in TEXT:
            yield path
