"""The result of checking a file: rows to publish, or faults with their places."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class FileFault:
    """One fault of a file. Lines and columns count from 1 (in CSV, a column is a field); 0 means the whole file or line."""

    line: int
    column: int
    message: str

    def __str__(self) -> str:
        if not self.line:
            return self.message
        return f"line {self.line}, column {self.column}: {self.message}" if self.column else f"line {self.line}: {self.message}"


@dataclass(slots=True)
class CheckedFile:
    """Rows as (key, message), and faults. Publish the rows only if there are no faults."""

    rows: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    faults: list[FileFault] = field(default_factory=list)
