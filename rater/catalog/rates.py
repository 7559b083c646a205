"""Rate decks as CSV: the public deck's columns, or the contract's own field names.

The public deck (Destination Name, Destination Type, Country, Prefix, Price / min) says nothing of service, currency, validity
and increments: `DeckDefaults` does, for it and for the contract's columns that a file leaves out or empty.
"""

import csv
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from rater.catalog.faults import Fault, Loaded
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

#: In order in every field, so that each field of a faulty row can be looked at by itself.
_IN_ORDER = {
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
    """What holds for rows that don't say otherwise."""

    rate_card: str = "default"
    service: str = "outbound"
    currency: str = "USD"
    effective_from: str = "2025-01-01T00:00:00Z"
    connection_fee: str = "0"
    initial_increment_s: int = 60
    increment_s: int = 60


def check_rates(lines: Iterable[str], defaults: DeckDefaults) -> Loaded:
    """Check a deck. Rule 8: two rows alike in card, service, currency, prefix and effective_from are a fault."""
    loaded = Loaded()
    filled_in = asdict(defaults)
    loaded.faults += [Fault(0, 0, f"default {name}: {message}") for name, message in _faulty_fields(filled_in)]
    if loaded.faults:
        return loaded
    reader = csv.reader(lines, strict=True)
    try:
        columns = _columns(next(reader, []), loaded)
        seen: dict[tuple[Any, ...], int] = {}
        for cells in reader if columns else ():
            if cells:
                _take(loaded, cells, columns, filled_in, reader.line_num, seen)
    except csv.Error as error:
        loaded.faults.append(Fault(reader.line_num, 0, f"not CSV: {error}"))
    except UnicodeDecodeError as error:  # files are read by the block: the line is near, not exact
        loaded.faults.append(Fault(0, 0, f"not UTF-8, after line {reader.line_num}: {error.reason}"))
    if not loaded.rows and not loaded.faults:
        loaded.faults.append(Fault(1, 0, "the file has no rates"))
    return loaded


def _columns(header: list[str], loaded: Loaded) -> dict[str, int]:
    """Field name → number of its column; empty where the header is not in order, so that no row is looked at."""
    columns: dict[str, int] = {}
    faults = []
    for column, title in enumerate(header, 1):
        name = _PUBLIC.get(title.strip(), title.strip())
        if name not in messages.Rate.__struct_fields__:
            faults.append(Fault(1, column, f"unknown column {title!r}"))
        elif name in columns:
            faults.append(Fault(1, column, f"column {title!r} stands twice"))
        columns[name] = column
    faults += [Fault(1, 0, f"column {name!r} is missing") for name in _NEEDED if name not in columns]
    loaded.faults += faults
    return {} if faults else columns


def _take(
    loaded: Loaded,
    cells: list[str],
    columns: dict[str, int],
    defaults: dict[str, Any],
    line: int,
    seen: dict[tuple[Any, ...], int],
) -> None:
    """One row: into the rows to publish, or its faults. `seen`: what no two rows may share → the line it stands on."""
    if len(cells) != len(columns):
        loaded.faults.append(Fault(line, 0, f"{len(cells)} columns, the header has {len(columns)}"))
        return
    row = _row({name: cell.strip() for name, cell in zip(columns, cells, strict=True) if cell.strip()}, defaults)
    faults = [Fault(line, columns[name], f"{name} is empty") for name in _NEEDED if name not in row]
    faults += [Fault(line, columns.get(name, 0), f"{name}: {message}") for name, message in _faulty_fields(row)]
    if not faults:
        try:
            rate = reading.read_rate(msgspec.json.encode(row))
        except Rejected as rejected:  # each field is in order, but not with the others
            faults.append(Fault(line, columns.get(rejected.message.partition(":")[0], 0), rejected.message))
        else:
            # Compared as an instant: the same validity may be written with another zone.
            identity = (rate.rate_card, rate.service, rate.currency, rate.prefix, rate.effective_from)
            if identity in seen:
                faults.append(Fault(line, columns["prefix"], f"the same prefix and validity as line {seen[identity]} (rule 8)"))
            elif (rate.rate_id,) in seen:
                faults.append(Fault(line, columns.get("rate_id", 0), f"the same rate_id as line {seen[rate.rate_id,]}"))
            seen.setdefault(identity, line)
            seen.setdefault((rate.rate_id,), line)
    if faults:
        loaded.faults += faults
    else:
        loaded.rows.append((row["rate_id"], row))


def _row(cells: dict[str, str], defaults: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = defaults | cells
    for name in _WHOLE_NUMBERS:
        if isinstance(row[name], str) and row[name].isascii() and row[name].isdigit():
            row[name] = int(row[name])
    # The id says what the row is: loading a file again replaces its rows, a new validity makes new ones.
    parts = (row["rate_card"], row["service"], row["currency"], row.get("prefix"), row["effective_from"])
    row.setdefault("rate_id", ":".join(map(str, parts)))
    return row


def _faulty_fields(row: dict[str, Any]) -> list[tuple[str, str]]:
    """Every field that is wrong whatever the others say, and why."""
    try:
        reading.read_rate(msgspec.json.encode(_IN_ORDER | row))
        return []
    except Rejected:
        pass
    found = []
    for name, value in row.items():
        try:
            reading.read_rate(msgspec.json.encode(_IN_ORDER | {name: value}))
        except Rejected as rejected:
            message = rejected.message.removeprefix(f"{name}: ").removesuffix(f" - at `$.{name}`")
            found.append((name, f"{value!r}: {message}"))
    return found
