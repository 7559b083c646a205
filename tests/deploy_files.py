"""Reads `docker-compose.yml`, the Dockerfile and `deploy/kubernetes` as data, and builds the Go programs that check them."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr

from rater.settings import Settings

ROOT = Path(__file__).parent.parent
COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILE = ROOT / "deploy" / "docker" / "Dockerfile"
KUBERNETES = ROOT / "deploy" / "kubernetes"

_BUILD_TIMEOUT_S = 170
#: Variables that the process reads itself; they are no fields of Settings.
_BESIDE_SETTINGS = frozenset({"RATER_SETTINGS_FILE", "RATER_PURE"})


def compose_services() -> dict[str, dict[str, Any]]:
    """Service name → its definition, with YAML merges applied."""
    services: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text())["services"]
    return services


def image_entrypoint() -> list[str]:
    """The image's ENTRYPOINT, which a service's own command follows."""
    return _instruction("ENTRYPOINT")


def image_environment() -> dict[str, str]:
    """The environment variables that the image sets."""
    pairs = re.findall(r"^ENV (.+)$", DOCKERFILE.read_text().split("\nFROM base\n")[1], re.MULTILINE)
    return dict(pair.split("=", 1) for line in pairs for pair in line.split())


def image_healthcheck() -> list[str]:
    """The command of the image's HEALTHCHECK."""
    return _instruction(r"HEALTHCHECK .*CMD")


def setting_variables() -> frozenset[str]:
    """The names of all RATER_… variables that the rater reads."""
    names = {f"RATER_{name.upper()}" for name in Settings.model_fields}
    secrets = {f"RATER_{name.upper()}_FILE" for name, field in Settings.model_fields.items() if _is_secret(field.annotation)}
    return frozenset(names | secrets | _BESIDE_SETTINGS)


def raters(environment: Mapping[str, Any]) -> dict[str, str]:
    """Those variables that begin with RATER_."""
    return {name: str(value) for name, value in environment.items() if name.startswith("RATER_")}


@cache
def built(overlay: str) -> tuple[dict[str, Any], ...]:
    """The objects that a kustomization builds. Skips the test if there is neither kubectl nor Go."""
    kubectl = shutil.which("kubectl")
    command = [kubectl, "kustomize"] if kubectl else [str(go_program("kustomize", _KUSTOMIZE)), "build"]
    made = subprocess.run([*command, str(KUBERNETES / overlay)], capture_output=True, text=True, timeout=60, check=False)
    assert made.returncode == 0, made.stderr
    return tuple(yaml.safe_load_all(made.stdout))


def schemas_of(kind: str, api_version: str) -> Path:
    """The schema file of a kind that Kubernetes itself does not define."""
    group, _, version = api_version.partition("/")
    return ROOT / "tests" / "unit" / "deploy" / "schemas" / f"{group}_{kind.lower()}_{version}.json"


def pods(objects: tuple[dict[str, Any], ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and pod spec of each object that runs pods."""
    for made in objects:
        if made["kind"] in {"StatefulSet", "Job"}:
            yield made["metadata"]["name"], made["spec"]["template"]["spec"]


_KUSTOMIZE = "sigs.k8s.io/kustomize/kustomize/v5@v5.8.1"


def go_program(name: str, package: str) -> Path:
    """The path of a program that Go builds once and keeps in .tools. Skips the test if it can't be built."""
    folder = ROOT / ".tools" / f"{name}-{package.rpartition('@')[2]}"
    program = folder / package.partition("@")[0].split("/")[-1]
    if re.fullmatch(r"v\d+", program.name):  # a program's name has no major version
        program = folder / package.partition("@")[0].split("/")[-2]
    if program.exists():
        return program
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        pytest.skip(f"{name} is a Go program, and Go is not installed")
    fetched = subprocess.run(
        [go, "install", package],
        env=os.environ | {"GOBIN": str(folder)},
        capture_output=True,
        text=True,
        timeout=_BUILD_TIMEOUT_S,
        check=False,
    )
    if fetched.returncode:
        pytest.skip(f"{name} can't be fetched: {fetched.stderr.strip()[-200:]}")
    return program


def _instruction(name: str) -> list[str]:
    found = re.findall(rf"^{name} (\[.*\])$", DOCKERFILE.read_text(), re.MULTILINE)
    assert len(found) == 1, f"{DOCKERFILE} has {len(found)} lines {name}, not one"
    words: list[str] = json.loads(found[0])
    return words


def _is_secret(annotation: Any) -> bool:
    return annotation == SecretStr or SecretStr in getattr(annotation, "__args__", ())
