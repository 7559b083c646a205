"""Reads the JSON objects of a file, an array or JSON lines, and where each begins."""

import json
from dataclasses import dataclass
from typing import Any

from rater.catalog.faults import FileFault

_SPACE = " \t\r\n"


@dataclass(frozen=True, slots=True)
class Document:
    """A JSON object and where it begins (line and column from 1)."""

    line: int
    column: int
    fields: dict[str, Any]

    def fault(self, message: str) -> FileFault:
        """A fault of this object."""
        return FileFault(self.line, self.column, message)


def objects(text: str, faults: list[FileFault]) -> list[Document]:
    """Return the objects of a file. Adds to `faults` whatever is not JSON or not an object."""
    text = text.removeprefix("\ufeff")
    decoder = json.JSONDecoder()
    found: list[Document] = []
    at = _past_space(text, 0)
    in_array = text[at : at + 1] == "["
    at = _past_space(text, at + 1) if in_array else at
    while at < len(text) and not (in_array and text[at] == "]"):
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            faults.append(FileFault(*_place(text, getattr(error, "pos", at)), f"not JSON: {getattr(error, 'msg', error)}"))
            return found
        document = Document(*_place(text, at), value)
        if isinstance(value, dict):
            found.append(document)
        else:
            faults.append(document.fault("not an object"))
        at = _past_space(text, end)
        if in_array and text[at : at + 1] == ",":
            at = _past_space(text, at + 1)
        elif in_array and text[at : at + 1] != "]":
            faults.append(FileFault(*_place(text, at), "not JSON: expecting ',' or ']' after an object"))
            return found
    if in_array and _past_space(text, at + 1) < len(text):
        faults.append(FileFault(*_place(text, _past_space(text, at + 1)), "not JSON: something follows the array"))
    if not found and not faults:
        faults.append(FileFault(1, 0, "the file is empty"))
    return found


def _past_space(text: str, at: int) -> int:
    while at < len(text) and text[at] in _SPACE:
        at += 1
    return at


def _place(text: str, at: int) -> tuple[int, int]:
    return text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
