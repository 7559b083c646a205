"""Checks CSV files of users, and turns each row into the command that sets or removes the user. Writes such files too.

Columns: user_id, usage_country, phone_system, calling_plan, audio_conferencing, communications_credits. If a licence is left
out or empty, the user doesn't hold it. A command's id is made of the load's id and the row's content, so repeating a load under
its id does nothing.
"""

import csv
from collections.abc import Iterable
from typing import Any, TextIO

from rater.catalog.faults import CheckedFile, FileFault
from rater.domain.command_records import file_row_command
from rater.domain.rejection import Rejected

_YES_NO = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_COLUMNS = ("user_id", "usage_country", "phone_system", "calling_plan", "audio_conferencing", "communications_credits")
_SWITCHES = ("phone_system", "communications_credits")


def check_users(lines: Iterable[str], org_id: str, load_id: str, remove: bool = False) -> CheckedFile:
    """Check a file of users of one organization. The rows are commands that set the users, or `remove` them.

    `load_id`: the id of the whole load. To remove users, a file needs only the column user_id.
    """
    checked = CheckedFile()
    reader = csv.reader(lines, strict=True)
    seen: dict[str, int] = {}
    try:
        columns = _columns(next(reader, []), ("user_id",) if remove else ("user_id", "usage_country"), checked)
        for cells in reader if columns else ():
            if not cells:
                continue
            if len(cells) != len(columns):
                checked.faults.append(FileFault(reader.line_num, 0, f"{len(cells)} columns, the header has {len(columns)}"))
                continue
            row = {name: cell.strip() for name, cell in zip(columns, cells, strict=True)}
            _take(checked, row, columns, reader.line_num, seen, (org_id, load_id, remove))
    except csv.Error as error:
        checked.faults.append(FileFault(reader.line_num, 0, f"not CSV: {error}"))
    except UnicodeDecodeError as error:  # files are read in blocks, so the line is not exact
        checked.faults.append(FileFault(0, 0, f"not UTF-8, after line {reader.line_num}: {error.reason}"))
    if not checked.rows and not checked.faults:
        checked.faults.append(FileFault(1, 0, "the file has no users"))
    return checked


def write_users(users: Iterable[dict[str, Any]], out: TextIO) -> None:
    """Write users, given as directory entries, in the form that `check_users` reads."""
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for user in users:
        fields = user | user["licences"]
        writer.writerow([{True: "yes", False: "no", None: ""}.get(fields[name], fields[name]) for name in _COLUMNS])


def _columns(header: list[str], needed: tuple[str, ...], checked: CheckedFile) -> dict[str, int]:
    """Column name → number. Empty if the header is faulty; the rows are not checked then."""
    columns: dict[str, int] = {}
    faults = []
    for column, title in enumerate(header, 1):
        name = title.strip()
        if name not in _COLUMNS:
            faults.append(FileFault(1, column, f"unknown column {title!r}; the columns are {', '.join(_COLUMNS)}"))
        elif name in columns:
            faults.append(FileFault(1, column, f"column {title!r} appears twice"))
        columns[name] = column
    faults += [FileFault(1, 0, f"column {name!r} is missing") for name in needed if name not in columns]
    checked.faults += faults
    return {} if faults else columns


def _take(
    checked: CheckedFile,
    row: dict[str, str],
    columns: dict[str, int],
    line: int,
    seen: dict[str, int],
    load: tuple[str, str, bool],
) -> None:
    """Check one row, and add its command or its faults to `checked`. `seen`: user → line. `load`: org_id, load_id, remove."""
    org_id, load_id, remove = load
    faults = [
        FileFault(line, columns[name], f"{name}: {row[name]!r} is neither yes nor no")
        for name in (() if remove else _SWITCHES)
        if row.get(name) and row[name].lower() not in _YES_NO
    ]
    user_id = row["user_id"]
    if user_id in seen:
        faults.append(FileFault(line, columns["user_id"], f"user {user_id!r} is also on line {seen[user_id]}"))
    seen.setdefault(user_id, line)
    if not faults:
        fields = {"user_id": user_id} if remove else _put(row)
        try:
            made = file_row_command("user.remove" if remove else "user.put", org_id, load_id, **fields)
        except Rejected as rejected:
            faults.append(_fault(line, row, columns, rejected.message))
        else:
            checked.rows.append((org_id, made))
    checked.faults += faults


def _fault(line: int, row: dict[str, str], columns: dict[str, int], message: str) -> FileFault:
    """A fault at the column that the message names, or of the whole line."""
    for name, column in columns.items():
        if name in message:
            return FileFault(line, column, f"{name}: {row[name]!r}: {message.partition(' - at ')[0]}")
    return FileFault(line, 0, message)


def _put(row: dict[str, str]) -> dict[str, Any]:
    licences = {
        "phone_system": _YES_NO.get(row.get("phone_system", "").lower(), False),
        "calling_plan": row.get("calling_plan") or None,
        "audio_conferencing": row.get("audio_conferencing") or None,
        "communications_credits": _YES_NO.get(row.get("communications_credits", "").lower(), False),
    }
    return {"user_id": row["user_id"], "usage_country": row["usage_country"], "licences": licences}
