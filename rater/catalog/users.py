"""Users as CSV, each row turned into the command that puts the user (or removes it).

Columns: user_id, usage_country, phone_system, calling_plan, audio_conferencing, communications_credits; a licence left out or
empty is not held. A command's id is made of the id of the whole load and of what the row says, so that a load repeated under
its id does nothing the second time.
"""

import csv
from collections.abc import Iterable
from typing import Any

from rater.catalog.faults import Fault, Loaded
from rater.domain.command_records import file_row_command
from rater.domain.rejection import Rejected

YES_NO = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
COLUMNS = ("user_id", "usage_country", "phone_system", "calling_plan", "audio_conferencing", "communications_credits")
_SWITCHES = ("phone_system", "communications_credits")


def check_users(lines: Iterable[str], org_id: str, load_id: str, remove: bool = False) -> Loaded:
    """Check a file of users of one organization; the rows are commands. To `remove` them the column user_id is enough."""
    loaded = Loaded()
    reader = csv.reader(lines, strict=True)
    seen: dict[str, int] = {}
    try:
        columns = _columns(next(reader, []), ("user_id",) if remove else ("user_id", "usage_country"), loaded)
        for cells in reader if columns else ():
            if not cells:
                continue
            if len(cells) != len(columns):
                loaded.faults.append(Fault(reader.line_num, 0, f"{len(cells)} columns, the header has {len(columns)}"))
                continue
            row = {name: cell.strip() for name, cell in zip(columns, cells, strict=True)}
            _take(loaded, row, columns, reader.line_num, seen, (org_id, load_id, remove))
    except csv.Error as error:
        loaded.faults.append(Fault(reader.line_num, 0, f"not CSV: {error}"))
    except UnicodeDecodeError as error:  # files are read by the block: the line is near, not exact
        loaded.faults.append(Fault(0, 0, f"not UTF-8, after line {reader.line_num}: {error.reason}"))
    if not loaded.rows and not loaded.faults:
        loaded.faults.append(Fault(1, 0, "the file has no users"))
    return loaded


def _columns(header: list[str], needed: tuple[str, ...], loaded: Loaded) -> dict[str, int]:
    """Name → number of its column; empty where the header is not in order, so that no row is looked at."""
    columns: dict[str, int] = {}
    faults = []
    for column, title in enumerate(header, 1):
        name = title.strip()
        if name not in COLUMNS:
            faults.append(Fault(1, column, f"unknown column {title!r}; there is {', '.join(COLUMNS)}"))
        elif name in columns:
            faults.append(Fault(1, column, f"column {title!r} stands twice"))
        columns[name] = column
    faults += [Fault(1, 0, f"column {name!r} is missing") for name in needed if name not in columns]
    loaded.faults += faults
    return {} if faults else columns


def _take(
    loaded: Loaded,
    row: dict[str, str],
    columns: dict[str, int],
    line: int,
    seen: dict[str, int],
    load: tuple[str, str, bool],
) -> None:
    """One row: into the commands, or its faults. `seen`: user → the line it stands on."""
    org_id, load_id, remove = load
    faults = [
        Fault(line, columns[name], f"{name}: {row[name]!r} is neither yes nor no")
        for name in (() if remove else _SWITCHES)
        if row.get(name) and row[name].lower() not in YES_NO
    ]
    user_id = row["user_id"]
    if user_id in seen:
        faults.append(Fault(line, columns["user_id"], f"user {user_id!r} stands on line {seen[user_id]} too"))
    seen.setdefault(user_id, line)
    if not faults:
        fields = {"user_id": user_id} if remove else _put(row)
        try:
            made = file_row_command("user.remove" if remove else "user.put", org_id, load_id, **fields)
        except Rejected as rejected:
            faults.append(_fault(line, row, columns, rejected.message))
        else:
            loaded.rows.append((org_id, made))
    loaded.faults += faults


def _fault(line: int, row: dict[str, str], columns: dict[str, int], message: str) -> Fault:
    """At the column whose field the message names, if it is one of the file's."""
    for name, column in columns.items():
        if name in message:
            return Fault(line, column, f"{name}: {row[name]!r}: {message.partition(' - at ')[0]}")
    return Fault(line, 0, message)


def _put(row: dict[str, str]) -> dict[str, Any]:
    licences = {
        "phone_system": YES_NO.get(row.get("phone_system", "").lower(), False),
        "calling_plan": row.get("calling_plan") or None,
        "audio_conferencing": row.get("audio_conferencing") or None,
        "communications_credits": YES_NO.get(row.get("communications_credits", "").lower(), False),
    }
    return {"user_id": row["user_id"], "usage_country": row["usage_country"], "licences": licences}
