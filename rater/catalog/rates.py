"""Checks CSV files of rates with the public deck's columns or the contract's field names.

The public deck (Destination Name, Destination Type, Country, Prefix, Price / min) has no service, currency, validity or
increments. `DeckDefaults` provides them, and any other value that a file leaves out.
"""

import csv
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from rater.catalog.faults import CheckedFile, FileFault
from rater.domain import messages, reading
from rater.domain.rejection import Rejected

_PUBLIC = {
    "Destination Name": "destination",
    "Destination Type": "number_type",
    "Country": "country",
    "Prefix": "prefix",
    "Price / min": "rate_per_minute",
}
_WHOLE_NUMBERS = ("initial_increment_s", "increment_s")
_NEEDED = ("prefix", "destination", "country", "rate_per_minute")

#: A valid row, to check each field of a faulty row by itself.
_VALID = {
    "rate_id": "id",
    "service": "outbound",
    "prefix": "1",
    "destination": "somewhere",
    "country": "US",
    "currency": "USD",
    "rate_per_minute": "1",
    "effective_from": "1970-01-01T00:00:00Z",
}


@dataclass(frozen=True, slots=True)
class DeckDefaults:
    """Values for what a row leaves out."""

    rate_card: str = "default"
    service: str = "outbound"
    currency: str = "USD"
    effective_from: str = "2025-01-01T00:00:00Z"
    connection_fee: str = "0"
    initial_increment_s: int = 60
    increment_s: int = 60


def check_rates(lines: Iterable[str], defaults: DeckDefaults) -> CheckedFile:
    """Check a deck. The rows are rate messages.

    Rule 8: two rows with the same card, service, currency, prefix and effective_from are a fault.
    """
    checked = CheckedFile()
    filled_in = asdict(defaults)
    checked.faults += [FileFault(0, 0, f"default {name}: {message}") for name, message in _faulty_fields(filled_in)]
    if checked.faults:
        return checked
    reader = csv.reader(lines, strict=True)
    try:
        columns = _columns(next(reader, []), checked)
        seen: dict[tuple[Any, ...], int] = {}
        for cells in reader if columns else ():
            if cells:
                _take(checked, cells, columns, filled_in, reader.line_num, seen)
    except csv.Error as error:
        checked.faults.append(FileFault(reader.line_num, 0, f"not CSV: {error}"))
    except UnicodeDecodeError as error:  # files are read in blocks, so the line is not exact
        checked.faults.append(FileFault(0, 0, f"not UTF-8, after line {reader.line_num}: {error.reason}"))
    if not checked.rows and not checked.faults:
        checked.faults.append(FileFault(1, 0, "the file has no rates"))
    return checked


def _columns(header: list[str], checked: CheckedFile) -> dict[str, int]:
    """Field name → column number. Empty if the header is faulty; the rows are not checked then."""
    columns: dict[str, int] = {}
    faults = []
    for column, title in enumerate(header, 1):
        name = _PUBLIC.get(title.strip(), title.strip())
        if name not in messages.Rate.__struct_fields__:
            faults.append(FileFault(1, column, f"unknown column {title!r}"))
        elif name in columns:
            faults.append(FileFault(1, column, f"column {title!r} appears twice"))
        columns[name] = column
    faults += [FileFault(1, 0, f"column {name!r} is missing") for name in _NEEDED if name not in columns]
    checked.faults += faults
    return {} if faults else columns


def _take(
    checked: CheckedFile,
    cells: list[str],
    columns: dict[str, int],
    defaults: dict[str, Any],
    line: int,
    seen: dict[tuple[Any, ...], int],
) -> None:
    """Check one row, and add it or its faults to `checked`. `seen`: identities that must be unique → their line."""
    if len(cells) != len(columns):
        checked.faults.append(FileFault(line, 0, f"{len(cells)} columns, the header has {len(columns)}"))
        return
    row = _row({name: cell.strip() for name, cell in zip(columns, cells, strict=True) if cell.strip()}, defaults)
    faults = [FileFault(line, columns[name], f"{name} is empty") for name in _NEEDED if name not in row]
    faults += [FileFault(line, columns.get(name, 0), f"{name}: {message}") for name, message in _faulty_fields(row)]
    if not faults:
        try:
            rate = reading.read_rate(msgspec.json.encode(row))
        except Rejected as rejected:  # each field is valid, but not together with the others
            faults.append(FileFault(line, columns.get(rejected.message.partition(":")[0], 0), rejected.message))
        else:
            # Validity is compared as an instant: the same one may be written in two time zones.
            identity = (rate.rate_card, rate.service, rate.currency, rate.prefix, rate.effective_from)
            if identity in seen:
                faults.append(
                    FileFault(line, columns["prefix"], f"the same prefix and validity as line {seen[identity]} (rule 8)")
                )
            elif (rate.rate_id,) in seen:
                faults.append(FileFault(line, columns.get("rate_id", 0), f"the same rate_id as line {seen[rate.rate_id,]}"))
            seen.setdefault(identity, line)
            seen.setdefault((rate.rate_id,), line)
    if faults:
        checked.faults += faults
    else:
        checked.rows.append((row["rate_id"], row))


def _row(cells: dict[str, str], defaults: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = defaults | cells
    for name in _WHOLE_NUMBERS:
        if isinstance(row[name], str) and row[name].isascii() and row[name].isdigit():
            row[name] = int(row[name])
    # The id is made of what identifies the row: loading a file again replaces its rows; a new validity adds rows.
    parts = (row["rate_card"], row["service"], row["currency"], row.get("prefix"), row["effective_from"])
    row.setdefault("rate_id", ":".join(map(str, parts)))
    return row


def _faulty_fields(row: dict[str, Any]) -> list[tuple[str, str]]:
    """Each field that is wrong by itself, and why."""
    try:
        reading.read_rate(msgspec.json.encode(_VALID | row))
        return []
    except Rejected:
        pass
    found = []
    for name, value in row.items():
        try:
            reading.read_rate(msgspec.json.encode(_VALID | {name: value}))
        except Rejected as rejected:
            message = rejected.message.removeprefix(f"{name}: ").removesuffix(f" - at `$.{name}`")
            found.append((name, f"{value!r}: {message}"))
    return found
