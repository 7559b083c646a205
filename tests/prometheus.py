"""A real Prometheus and its promtool for the tests: from the PATH, else Debian's package unpacked beside the project.

`python -m tests.prometheus` fetches the package into .tools/, without installing anything. Where there is neither, it says so,
and the tests that need them are skipped.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / ".tools" / "prometheus"
TOOLS = ("prometheus", "promtool")


def find(tool: str) -> Path | None:
    """Where a tool is, if it is anywhere."""
    found = shutil.which(tool)
    unpacked = FOLDER / "usr" / "bin" / tool
    return Path(found) if found else unpacked if unpacked.exists() else None


def tool_or_skip(tool: str) -> Path:
    """A tool; skips the test where there is none and none can be had."""
    path = find(tool)
    if path is None:
        pytest.skip(f"no {tool} here, and no Debian to fetch it from")
    return path


def fetch() -> str:
    """Have both tools, if that can be; says what came of it."""
    if all(map(find, TOOLS)):
        return "Prometheus is there"
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        return "no Prometheus here, and no Debian to fetch it from: its tests are skipped"
    FOLDER.mkdir(parents=True, exist_ok=True)
    if _run("apt-get", "download", "prometheus").returncode and os.geteuid() == 0:  # its lists may never have been fetched
        _run("apt-get", "update")
        _run("apt-get", "download", "prometheus")
    for package in FOLDER.glob("prometheus_*.deb"):
        _run("dpkg-deb", "--extract", package.name, ".")
        package.unlink()
    if all(map(find, TOOLS)):
        return f"Debian's Prometheus is in {FOLDER.relative_to(ROOT)}"
    return "no Prometheus could be fetched: its tests are skipped"


def _run(*command: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(command, cwd=FOLDER, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


if __name__ == "__main__":
    print(fetch())
    sys.exit(0)
