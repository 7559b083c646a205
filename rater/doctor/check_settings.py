"""Settings: which are set and where, which agents they suffice for, the data folder, and encryption."""

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
    """The folder of the local stores. `free_bytes`: on its disk, None if unknown."""

    path: Path
    is_writable: bool
    free_bytes: int | None


def check(settings: Settings) -> list[DoctorFinding]:
    """Check settings and data folder. Asks no broker and creates nothing."""
    return [
        ok("settings.set", _summary(settings)),
        *judge_agents(lacking(settings, AGENTS)),
        *judge_data_folder(_data_folder(settings.data_dir)),
        *judge_bootstrap(settings),
    ]


def judge_agents(lacks: Mapping[str, str]) -> list[DoctorFinding]:
    """`lacks`: agent → the required setting that is missing. Only a note: another worker may have it."""
    return [
        note(
            "settings.agent_not_set_up",
            f"the {agent} agent doesn't run with these settings",
            f"to run it, set {setting}",
        )
        for agent, setting in lacks.items()
    ]


def judge_data_folder(folder: DataFolder) -> list[DoctorFinding]:
    """The local stores are only a cache, but a worker can't start without them."""
    if not folder.is_writable:
        todo = "make the worker's user its owner, or set RATER_DATA_DIR to another folder"
        return [fault("settings.data_dir", f"this user can't write to {folder.path}", todo)]
    if folder.free_bytes is None:
        return []
    room = f"{folder.free_bytes // _MIB} MiB free for {folder.path}"
    todo = "free some space, or set RATER_DATA_DIR to another disk: the stores are rebuilt from Kafka"
    if folder.free_bytes < _ROOM_FAULT_BYTES:
        return [fault("settings.disk_full", room, todo)]
    if folder.free_bytes < _ROOM_WARNING_BYTES:
        return [warning("settings.disk_low", room, todo)]
    return [ok("settings.data_dir", room)]


def judge_bootstrap(settings: Settings) -> list[DoctorFinding]:
    """Whether calls and money cross the network unencrypted."""
    away = [address for address in settings.bootstrap.split(",") if not _is_local(address.strip())]
    if not away or "ssl" in settings.kafka_security.split("_"):
        return []
    what = f"calls and money go to {away[0]} unencrypted ({settings.kafka_security}), as RATER_KAFKA_PLAINTEXT_ALLOWED permits"
    return [warning("settings.plaintext", what, "set RATER_KAFKA_SECURITY=sasl_ssl: docs/how-to/secure-kafka.md")]


def _is_local(address: str) -> bool:
    """Whether "host:port", or a host alone, is this machine."""
    hosts = (address, address.rpartition(":")[0])
    return any(is_loopback(host.strip("[]"), whole_network=True) for host in hosts)


def _summary(settings: Settings) -> str:
    shown = [f"{name}={_shown(getattr(settings, name))} ({source})" for name, source in sorted(_sources(settings).items())]
    return ", ".join(shown) or "nothing is set: all settings have their defaults"


def _sources(settings: Settings) -> dict[str, str]:
    """Setting → where it is set. The command line overrides the environment, which overrides the file."""
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
