"""This installation: versions of rater, Python and libraries, the compiled core, time zone data."""

import platform
import re
import tomllib
import zoneinfo
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from rater import __version__, compiled
from rater.doctor.findings import DoctorFinding, fault, listed, note, ok

_DISTRIBUTION = "call-rater"
_PIN = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?\s*==\s*([^\s;,]+)")
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_LOCK = Path(__file__).parent.parent.parent / "uv.lock"  # only in a checkout
_ZONE = "America/New_York"
_REPAIR = "uv sync --frozen, or reinstall call-rater"


def check() -> list[DoctorFinding]:
    """Check what is installed; asks no broker."""
    required = _required()
    found = {name: _installed(name) for name in required}
    return [
        ok("versions.rater", f"rater {__version__} on Python {platform.python_version()}"),
        *judge_libraries(required, found, _locked()),
        judge_core(is_compiled=compiled.is_used()),
        *judge_zones(has_zones=_has_zones()),
    ]


def judge_libraries(
    required: Mapping[str, str | None], installed: Mapping[str, str | None], locked: Mapping[str, str]
) -> list[DoctorFinding]:
    """All arguments map library → version.

    `required`: the pinned version, None if any will do. `installed`: None if missing. `locked`: what the tests ran with.
    """
    findings = []
    pins = {name: pin for name, pin in required.items() if pin is not None}
    missing = [name for name in required if installed[name] is None]
    if missing:
        findings.append(fault("versions.missing", f"not installed: {listed(missing)}", _REPAIR))
    wrong = [f"{name} {installed[name]}, not {pin}" for name, pin in pins.items() if installed[name] not in (None, pin)]
    if wrong:
        what = f"{listed(wrong)}: the engine depends on internals of exactly these versions"
        findings.append(fault("versions.pinned", what, _REPAIR))
    elif not missing:
        findings.append(ok("versions.pinned", ", ".join(f"{name} {pin}" for name, pin in pins.items()) + ", as pinned"))
    others = [
        f"{name} {installed[name]}, locked {locked[name]}"
        for name in required
        if name not in pins and name in locked and installed[name] not in (None, locked[name])
    ]
    if others:
        findings.append(
            note("versions.not_as_locked", listed(others), "uv sync --frozen installs the versions the tests ran with")
        )
    return findings


def judge_core(*, is_compiled: bool) -> DoctorFinding:
    """Without the compiled core the results are the same, only slower."""
    if is_compiled:
        return ok("versions.core", "the core is compiled")
    return note("versions.core", "the core runs as Python source: same results, but slower", "python -m rater.compiled")


def judge_zones(*, has_zones: bool) -> list[DoctorFinding]:
    """Months need the organization's time zone (rule 11)."""
    if has_zones:
        return []
    what = f"no time zone data: {_ZONE} is unknown, and months need it (rule 11)"
    return [fault("versions.no_time_zones", what, "pip install tzdata")]


def _required() -> dict[str, str | None]:
    try:
        lines = metadata.requires(_DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return {}
    required: dict[str, str | None] = {}
    for line in lines:
        name = _NAME.match(line)
        if name is not None and "extra ==" not in line:
            pin = _PIN.match(line)
            required[name[0]] = pin[2] if pin else None
    return required


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _locked() -> dict[str, str]:
    if not _LOCK.is_file():
        return {}
    return {p["name"]: p["version"] for p in tomllib.loads(_LOCK.read_text())["package"] if "version" in p}


def _has_zones() -> bool:
    try:
        zoneinfo.ZoneInfo(_ZONE)
    except zoneinfo.ZoneInfoNotFoundError:
        return False
    return True
