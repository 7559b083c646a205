"""Messages and rows to bytes."""

from typing import Any, Final

import msgspec

_BUFFER_BYTES: Final = 1 << 20

_into_json: Final = msgspec.json.Encoder().encode_into
_into_row: Final = msgspec.msgpack.Encoder().encode_into


class Writer:
    """Encodes into a buffer it keeps: half of what encoding a record costs is asking for memory. For one thread."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray(_BUFFER_BYTES)

    def json(self, message: Any) -> bytes:
        """A message as it goes out."""
        _into_json(message, self._buffer)
        return bytes(self._buffer)

    def row(self, value: Any) -> bytes:
        """A row as it is kept."""
        _into_row(value, self._buffer)
        return bytes(self._buffer)
