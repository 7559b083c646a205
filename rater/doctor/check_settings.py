"""The settings: which there are and from where, and what of them does not go together with this machine."""

import os
import re
import shutil
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from rater.bootstrap import AGENTS, lacking
from rater.doctor.findings import DoctorFinding, fault, note, ok, warning
from rater.kafka.connection import is_loopback
from rater.settings import Settings

_MIB = 1024 * 1024
_ROOM_WARNING_BYTES = 2048 * _MIB
_ROOM_FAULT_BYTES = 256 * _MIB
_HIDDEN = "***"
_USER_IN_URL = re.compile(r"//[^/@]*@")


@dataclass(frozen=True, slots=True)
class DataFolder:
    """A folder as the file system has it; `free_bytes` None where that can't be known."""

    path: Path
    is_writable: bool
    free_bytes: int | None


def check(settings: Settings) -> list[DoctorFinding]:
    """Look at settings and data folder; asks nobody, and makes nothing."""
    return [
        ok("settings.set", _told(settings)),
        *judge_agents(lacking(settings, AGENTS)),
        *judge_data_folder(_data_folder(settings.data_dir)),
        *judge_bootstrap(settings),
    ]


def judge_agents(lacks: Mapping[str, str]) -> list[DoctorFinding]:
    """`lacks`: agent → the setting it can't run without. Fine where another worker has it set."""
    return [
        note(
            "settings.agent_not_set_up",
            f"the {agent} agent does not run with these settings",
            f"set {setting} where it is to run",
        )
        for agent, setting in lacks.items()
    ]


def judge_data_folder(folder: DataFolder) -> list[DoctorFinding]:
    """Where the local stores are: a cache, but a worker without one does not start."""
    if not folder.is_writable:
        todo = "give it to the worker's user, or set RATER_DATA_DIR to a folder of its own"
        return [fault("settings.data_dir", f"{folder.path} can't be written to by this user", todo)]
    if folder.free_bytes is None:
        return []
    room = f"{folder.free_bytes // _MIB} MiB are left for {folder.path}"
    todo = "make room, or set RATER_DATA_DIR to another disk: what is there is rebuilt from Kafka"
    if folder.free_bytes < _ROOM_FAULT_BYTES:
        return [fault("settings.disk_full", room, todo)]
    if folder.free_bytes < _ROOM_WARNING_BYTES:
        return [warning("settings.disk_low", room, todo)]
    return [ok("settings.data_dir", room)]


def judge_bootstrap(settings: Settings) -> list[DoctorFinding]:
    """Whether calls and money go over the network for all to read."""
    away = [address for address in settings.bootstrap.split(",") if not _is_local(address.strip())]
    if not away or "ssl" in settings.kafka_security.split("_"):
        return []
    what = f"calls and money go to {away[0]} in the clear ({settings.kafka_security}), as it was allowed by name"
    return [warning("settings.plaintext", what, "RATER_KAFKA_SECURITY=sasl_ssl: docs/how-to/secure-kafka.md")]


def _is_local(address: str) -> bool:
    """Whether "host:port", or a host alone, is this machine."""
    hosts = (address, address.rpartition(":")[0])
    return any(is_loopback(host.strip("[]"), whole_network=True) for host in hosts)


def _told(settings: Settings) -> str:
    told = [f"{name}={_shown(getattr(settings, name))} ({source})" for name, source in sorted(_sources(settings).items())]
    return ", ".join(told) or "no setting is set: all are at their defaults"


def _sources(settings: Settings) -> dict[str, str]:
    """What is set → where: the command line goes before the environment, which goes before the file."""
    environment = {name.lower() for name in os.environ}
    file = os.environ.get("RATER_SETTINGS_FILE")
    in_file = tomllib.loads(Path(file).read_text()) if file else {}
    sources = {}
    for name in settings.model_fields_set:
        if f"rater_{name}" in environment:
            sources[name] = "environment"
        elif f"rater_{name}_file" in environment:
            sources[name] = "file of its own"
        elif name in in_file:
            sources[name] = str(file)
        else:
            sources[name] = "command line"
    return sources


def _shown(value: object) -> str:
    return _HIDDEN if isinstance(value, SecretStr) else _USER_IN_URL.sub(f"//{_HIDDEN}@", str(value))


def _data_folder(folder: Path) -> DataFolder:
    there = folder.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    is_writable = there.is_dir() and os.access(there, os.W_OK | os.X_OK)
    try:
        free_bytes = shutil.disk_usage(there).free
    except OSError:
        free_bytes = None
    return DataFolder(folder.absolute(), is_writable, free_bytes)
