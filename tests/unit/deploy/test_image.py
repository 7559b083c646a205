"""Tests of the image without Docker: the Dockerfile is linted, and what it says is checked."""

import re
import subprocess
import sysconfig
import tomllib
from pathlib import Path

from tests.deploy_files import DOCKERFILE, ROOT, compose_services, image_environment, image_healthcheck, setting_variables

TEXT = DOCKERFILE.read_text()
LAST_STAGE = TEXT.split("\nFROM base\n")[1]
HADOLINT = Path(sysconfig.get_path("scripts")) / "hadolint"


def test_hadolint_finds_nothing() -> None:
    done = subprocess.run([HADOLINT, "--failure-threshold", "style", DOCKERFILE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_last_stage_installs_nothing_and_has_no_compiler() -> None:
    assert not re.findall(r"\b(apt-get|pip|uv|gcc|curl)\b", LAST_STAGE)
    assert re.findall(r"--from=(\w+)", LAST_STAGE) == ["build"]


def test_it_runs_as_a_numbered_user_who_is_not_root() -> None:
    assert re.findall(r"^USER (.+)$", LAST_STAGE, re.MULTILINE) == ["10001:10001"]


def test_both_stages_are_the_same_python_to_the_last_digit() -> None:
    assert re.findall(r"^FROM (\S+)", TEXT, re.MULTILINE) == ["python:3.11.14-slim-bookworm", "base", "base"]


def test_uv_is_the_one_the_makefile_uses() -> None:
    wanted = re.search(r"UV_VERSION := (\S+)", (ROOT / "Makefile").read_text())
    assert wanted is not None
    assert f"uv=={wanted[1]}\n" in TEXT


def test_the_lock_file_holds_a_hash_of_everything_that_is_installed() -> None:
    assert TEXT.count("uv sync --frozen") == TEXT.count("uv sync ")
    packages = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    fetched = [file for package in packages for file in package.get("wheels", [])]
    fetched += [package["sdist"] for package in packages if "sdist" in package]
    assert len(fetched) > 100
    assert all(file["hash"].startswith("sha256:") for file in fetched)


def test_what_is_copied_is_in_the_build_context() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {name for line in re.findall(r"^COPY (?!--)(.+) \S+$", TEXT, re.MULTILINE) for name in line.split()}
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)


def test_what_the_wheel_brings_along_is_copied_before_it_is_built() -> None:
    brought = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"][
        "force-include"
    ]
    assert all(re.search(rf"^COPY {name} {name}$", TEXT, re.MULTILINE) for name in brought)


def test_its_variables_are_settings() -> None:
    assert {name for name in image_environment() if name.startswith("RATER_")} <= setting_variables()


def test_the_healthcheck_is_the_probe_that_compose_asks_too() -> None:
    probe = ["python", "-m", "rater.ops.probe"]
    assert image_healthcheck() == [*probe, "livez"]
    assert compose_services()["worker"]["healthcheck"]["test"] == ["CMD", *probe, "readyz"]
