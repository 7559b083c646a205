"""Runs the image's build steps without Docker: the same commands in the same order, in temporary folders."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy_files import DOCKERFILE, ROOT, image_entrypoint

BUILD_STAGE = DOCKERFILE.read_text().split("\nWORKDIR /build\n")[1].split("\nFROM ")[0]


def test_the_build_steps_make_a_rater_that_is_compiled_and_has_no_tools_in_it(tmp_path: Path) -> None:
    uv = ROOT / ".tools" / "venv" / "bin" / "uv"
    if not uv.exists() and shutil.which("uv") is None:
        pytest.skip("uv is not installed; `make setup` fetches it")
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed; in the image the build stage installs it")
    build, opt = tmp_path / "build", tmp_path / "opt"
    build.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RATER_", "VIRTUAL_ENV"))}
    environment |= {"UV_PYTHON_DOWNLOADS": "never", "UV_LINK_MODE": "copy", "UV_PYTHON": sys.executable}
    environment["PATH"] = f"{uv.parent}:{environment['PATH']}"
    for step in re.sub(r"\\\n", " ", BUILD_STAGE).splitlines():
        kind, _, rest = step.partition(" ")
        if kind == "COPY":
            *names, target = rest.split()
            for name in names:
                copy(ROOT / name, build / target / (name if target == "./" else ""))
        elif kind == "RUN":
            command = rest.replace("/opt/", f"{opt}/").replace("python3.11", f"python3.{sys.version_info.minor}")
            done = subprocess.run(command, shell=True, cwd=build, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    programs = {file.name for file in (opt / "rater" / "bin").iterdir()}
    assert image_entrypoint()[0] in programs
    assert not programs & {"mypy", "mypyc", "pytest", "pip", "uv"}
    said = subprocess.run([opt / "rater" / "bin" / "rater", "topics", "--help"], cwd=tmp_path, capture_output=True, check=False)
    assert said.returncode == 0, said.stderr


def copy(source: Path, target: Path) -> None:
    """Copy as COPY does, without the files that .dockerignore excludes."""
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "built"))
    else:
        shutil.copy(source, target)
