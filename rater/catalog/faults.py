"""What a check gives: rows to publish, or what is wrong and where."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong. Lines and columns count from 1, a CSV's columns by its fields; 0: the whole file, or line."""

    line: int
    column: int
    message: str

    def __str__(self) -> str:
        if not self.line:
            return self.message
        return f"line {self.line}, column {self.column}: {self.message}" if self.column else f"line {self.line}: {self.message}"


@dataclass(slots=True)
class Loaded:
    """Rows as (key, message), or faults; rows are to be published only if there is no fault."""

    rows: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
