"""Rate decks as CSV: the public deck's columns, or the contract's own field names.

The public deck (Destination Name, Destination Type, Country, Prefix, Price / min) says nothing of service, currency,
validity and increments: `DeckDefaults` does, for it and for the contract's columns that a file leaves out.
"""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from rater.domain import messages
from rater.domain.rejection import Rejected
from rater.loading.faults import Fault, Loaded

_PUBLIC = {
    "Destination Name": "destination",
    "Destination Type": "number_type",
    "Country": "country",
    "Prefix": "prefix",
    "Price / min": "rate_per_minute",
}
_WHOLE_NUMBERS = ("initial_increment_s", "increment_s")
_NEEDED = ("prefix", "destination", "country", "rate_per_minute")


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
    reader = csv.reader(lines)
    header = next(reader, [])
    names = [_PUBLIC.get(name.strip(), name.strip()) for name in header]
    fields = set(messages.Rate.__struct_fields__)
    for column, name in enumerate(names, 1):
        if name not in fields:
            loaded.faults.append(Fault(1, column, f"unknown column {header[column - 1]!r}"))
        elif name in names[: column - 1]:
            loaded.faults.append(Fault(1, column, f"column {header[column - 1]!r} stands twice"))
    loaded.faults += [Fault(1, 0, f"column {name!r} is missing") for name in _NEEDED if name not in names]
    if loaded.faults:
        return loaded
    columns = {name: column for column, name in enumerate(names, 1)}
    seen: dict[tuple[str, ...], int] = {}
    ids: dict[str, int] = {}
    for cells in reader:
        line = reader.line_num
        if not cells:
            continue
        if len(cells) != len(names):
            loaded.faults.append(Fault(line, 0, f"{len(cells)} columns, the header has {len(names)}"))
            continue
        row = _row({name: cell.strip() for name, cell in zip(names, cells, strict=True) if cell.strip()}, defaults)
        fault = _fault(row, columns, line)
        identity = tuple(str(row[name]) for name in ("rate_card", "service", "currency", "prefix", "effective_from"))
        if fault is None and identity in seen:
            fault = Fault(line, columns["prefix"], f"the same prefix and validity as line {seen[identity]} (rule 8)")
        if fault is None and row["rate_id"] in ids:
            fault = Fault(line, columns.get("rate_id", 0), f"rate_id {row['rate_id']!r} stands on line {ids[row['rate_id']]}")
        if fault is not None:
            loaded.faults.append(fault)
            continue
        seen[identity] = ids[row["rate_id"]] = line
        loaded.rows.append((row["rate_id"], row))
    if not loaded.rows and not loaded.faults:
        loaded.faults.append(Fault(1, 0, "the file has no rates"))
    return loaded


def _row(cells: dict[str, str], defaults: DeckDefaults) -> dict[str, Any]:
    row: dict[str, Any] = {name: getattr(defaults, name) for name in defaults.__slots__} | cells
    for name in _WHOLE_NUMBERS:
        if isinstance(row[name], str) and row[name].isascii() and row[name].isdigit():
            row[name] = int(row[name])
    # The id says what the row is: loading a file again replaces its rows, a new validity makes new ones.
    row.setdefault("rate_id", f"{row['rate_card']}:{row['service']}:{row['currency']}:{row['prefix']}:{row['effective_from']}")
    return row


def _fault(row: dict[str, Any], columns: dict[str, int], line: int) -> Fault | None:
    try:
        messages.read_rate(msgspec.json.encode(row))
    except Rejected as rejected:
        at = next((column for name, column in columns.items() if name in rejected.message), 0)
        return Fault(line, at, rejected.message)
    return None
