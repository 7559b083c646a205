"""The log: one line per event, as text on a terminal and as JSON everywhere else.

Every line passes through here, the rater's own and those of aiokafka, Faust and Stripe's SDK: `logging` collects them and
structlog writes them. So phone numbers, mail addresses and secrets are masked in one place, wherever they stand in a line: in
its text, its arguments, its fields or a traceback.

Masked are E.164 numbers, `tel:` and `sip:` addresses, mail addresses, credentials in URLs, text that looks like a key, and text
that follows a word like `password`. A bare run of digits is not masked, because it may be an offset or a timestamp.
"""

import logging
import re
import sys
from collections.abc import Mapping
from typing import Any, Literal, TextIO

import orjson
import structlog
from structlog.typing import EventDict, Processor

__all__ = ["LogFormat", "mask", "set_up"]

LogFormat = Literal["auto", "console", "json"]

#: Loggers limited to warnings: their info lines only help their own developers.
_CHATTY = ("aiokafka", "asyncio", "faust", "mode", "stripe")
#: Fields that always hold a phone number and are masked whole, in whatever form it is written.
_NUMBER_FIELDS = frozenset({"caller", "callee", "number", "phone"})

_CREDENTIALS = re.compile(r"(?<=://)[^\s/@]+@")
_KEYS = re.compile(r"\b(whsec_|[srp]k_(?:live|test)_)[\w+/=-]+")
_BEARER = re.compile(r"(?i)\b(bearer|authorization[\"']?: *[\"']?basic) +[\w.~+/=-]+")
_SECRET = re.compile(r"(?i)((?:password|passwd|secret|token|api_?key)[\"']?\s*[=:]\s*[\"']?)[^\s\"',;&)}\]]+")
_PART = r"[^\s@<>\"',;:()\[\]{}=|/\\]"
_MAIL = re.compile(rf"({_PART}){_PART}*@(?:{_PART}*@)*({_PART}+)")
_ADDRESS = re.compile(r"(?i)\b(tel|sips?):\+?[\d().-]{4,}")
_NUMBER = re.compile(r"\+(\d)[\d ().-]{4,}(\d\d)(?!\d)")


def set_up(level: str, log_format: LogFormat = "auto", stream: TextIO | None = None) -> None:
    """Write all log lines of `level` and above to `stream`, by default standard error.

    Call it once, at start-up: it replaces the handlers of the root logger.
    """
    out = sys.stderr if stream is None else stream
    as_json = log_format == "json" or (log_format == "auto" and not out.isatty())
    threshold = logging.getLevelNamesMapping()[level.upper()]
    common: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: Processor
    if as_json:
        renderer = structlog.processors.JSONRenderer(serializer=_to_json)
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback)
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=common,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _mask_event,
                renderer,
            ],
        )
    )
    if threshold > logging.DEBUG:
        handler.addFilter(_is_no_service_step)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(threshold)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, threshold))


def mask(text: str) -> str:
    """The text with phone numbers, mail addresses and secrets replaced by `…`."""
    text = _CREDENTIALS.sub("…@", text)
    text = _KEYS.sub(r"\1…", text)
    text = _BEARER.sub(r"\1 …", text)
    text = _SECRET.sub(r"\1…", text)
    text = _ADDRESS.sub(r"\1:…", text)
    text = _MAIL.sub(r"\1…@\2", text)
    return _NUMBER.sub(r"+\1…\2", text)


def _mask_event(logger: Any, method: str, event: EventDict) -> EventDict:
    del logger, method
    ordered = {name: event.pop(name) for name in ("timestamp", "level", "logger", "event") if name in event}
    return {name: _masked(name, value) for name, value in {**ordered, **event}.items()}


def _masked(name: str, value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return "…" if name in _NUMBER_FIELDS and value is not None else value
    if isinstance(value, Mapping):
        return {str(key): _masked(str(key), held) for key, held in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_masked(name, held) for held in value]
    return "…" if name in _NUMBER_FIELDS else mask(str(value))


def _is_no_service_step(record: logging.LogRecord) -> bool:
    """False for the lines that Faust logs when one of its services starts or stops."""
    return record.levelno > logging.INFO or not str(record.msg).startswith("[^")


def _to_json(event: Any, **_: Any) -> str:
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
