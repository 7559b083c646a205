"""Encodes messages and rows."""

from typing import Any, Final

import msgspec

_BUFFER_BYTES: Final = 1 << 20

_into_json: Final = msgspec.json.Encoder().encode_into
_into_row: Final = msgspec.msgpack.Encoder().encode_into


class Writer:
    """Encodes into a buffer that it reuses, since allocating memory is half the cost of encoding a record. Not thread-safe."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray(_BUFFER_BYTES)

    def json(self, message: Any) -> bytes:
        """A message as JSON."""
        _into_json(message, self._buffer)
        return bytes(self._buffer)

    def row(self, value: Any) -> bytes:
        """A row as MessagePack."""
        _into_row(value, self._buffer)
        return bytes(self._buffer)
