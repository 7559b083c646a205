"""A real Prometheus and its promtool for the tests: from the PATH, or from Debian's package unpacked in .tools/.

`python -m tests.prometheus` fetches the package and unpacks it; it installs nothing. If that fails, it says so, and the tests
that need Prometheus are skipped.
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
    """The path of a tool, or None if it is not there."""
    found = shutil.which(tool)
    unpacked = FOLDER / "usr" / "bin" / tool
    return Path(found) if found else unpacked if unpacked.exists() else None


def tool_or_skip(tool: str) -> Path:
    """The path of a tool. Skips the test if it is not there."""
    path = find(tool)
    if path is None:
        pytest.skip(f"{tool} is not installed and could not be fetched")
    return path


def fetch() -> str:
    """Fetch both tools if they are missing. Returns the result in words."""
    if all(map(find, TOOLS)):
        return "Prometheus is installed"
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        return "Prometheus is not installed and can be fetched only on Debian: its tests will be skipped"
    FOLDER.mkdir(parents=True, exist_ok=True)
    if _run("apt-get", "download", "prometheus").returncode and os.geteuid() == 0:  # the package lists may be missing
        _run("apt-get", "update")
        _run("apt-get", "download", "prometheus")
    for package in FOLDER.glob("prometheus_*.deb"):
        _run("dpkg-deb", "--extract", package.name, ".")
        package.unlink()
    if all(map(find, TOOLS)):
        return f"Debian's Prometheus is in {FOLDER.relative_to(ROOT)}"
    return "Prometheus could not be fetched: its tests will be skipped"


def _run(*command: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(command, cwd=FOLDER, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


if __name__ == "__main__":
    print(fetch())
    sys.exit(0)
