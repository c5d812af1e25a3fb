"""Set-up of logging: structlog and the standard library end in one handler on standard error, security events aside.

Whatever is logged is taken for hostile: escaped, cut and rid of secrets here and nowhere else. Called once, by the
composition root; everybody else only asks structlog for a logger (see the package's docstring).
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import sys
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from scep_ra.security_events import STRANGERS_EVENTS
from scep_ra.telemetry.rate import PerSourceLimit
from scep_ra.telemetry.security import mark_stream, route_security_events

MAX_TEXT_CHARACTERS: Final = 256
_MAX_TRACEBACK_CHARACTERS: Final = 16384
_MAX_DEPTH: Final = 4
_MAX_ITEMS: Final = 32
# int() of longer numbers to decimal text raises ValueError (Python's 4300 digit limit) and costs quadratic time.
_MAX_DECIMAL_BITS: Final = 1024

# Controls with ESC and C1 (ANSI sequences), bidirectional marks, overrides and isolates, line and paragraph
# separators, zero-width characters, tags, byte order mark, lone surrogates.
_UNSAFE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)
_SECRET: Final = re.compile(r"challenge|passw(or)?d|passphrase|secret|authorization|cookie|private_?key", re.IGNORECASE)
_REDACTED: Final = "[redacted]"
_LEADING: Final = ("timestamp", "level", "event")
# What strangers can make us write as often as they like, and how many lines a minute each source may cause. A refusal
# may be looked for by an operator, and gateways speak for many devices: ten times as many.
_NOISE: Final = ("http_malformed", "connection_refused", "connection_expired", "request_malformed", "overloaded")
_LINES_PER_MINUTE: Final = {**dict.fromkeys(_NOISE, 10), **dict.fromkeys(map(str, STRANGERS_EVENTS), 100)}


def configure_logging(
    *,
    level: Literal["debug", "info", "warning", "error"] = "info",
    output: Literal["auto", "json", "text"] = "auto",
    stream: TextIO | None = None,
    security: Path | None = None,
) -> None:
    """Send all logging to the stream (standard error); "auto" means text on a terminal and JSON lines elsewhere.

    Security events go to the file `security` instead, as JSON lines; raise Misconfigured when it cannot be opened.
    """
    target = sys.stderr if stream is None else stream
    as_text = target.isatty() if output == "auto" else output == "text"
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        mark_stream,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        add_incident,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            PerSourceLimit(_LINES_PER_MINUTE),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(_formatter(shared, render_text if as_text else render_json))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    route_security_events(security, _formatter(shared, render_json))


def _formatter(shared: Sequence[Processor], render: Processor) -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            make_safe,
            render,
        ],
    )


def add_incident(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Give an event that carries an exception a number by which an operator finds it; one that is given stays."""
    if event.get("exc_info"):
        event.setdefault("incident", secrets.token_hex(4))
    return event


def make_safe(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace secrets, escape text and cut it, at every depth; a traceback keeps its lines."""
    traceback = event.pop("exception", None)
    leading = {key: event[key] for key in _LEADING if key in event}
    safe = _safe_mapping({**leading, **event}, depth=0)
    if traceback is not None:
        lines = str(traceback)[-_MAX_TRACEBACK_CHARACTERS:].splitlines()
        safe["exception"] = "\n".join(_escape(line) for line in lines)
    return safe


def render_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    """Return the event as one line of JSON, pure ASCII."""
    return json.dumps(event, default=str)


def render_text(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    """Return the event as a line for people; the lines of a traceback are indented, so none can pass for an event."""
    traceback = event.pop("exception", "")
    time, level, name = (event.pop(key, "-") for key in ("timestamp", "level", "event"))
    pairs = (f" {key}={_quoted(value)}" for key, value in event.items())
    indented = "".join(f"\n    | {line}" for line in traceback.splitlines())
    return f"{time} {level:<7} {_quoted(name)}{''.join(pairs)}{indented}"


def _quoted(value: object) -> str:
    plain = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return plain if re.fullmatch(r"[^\s\"=]+", plain) else json.dumps(plain, ensure_ascii=False)


def _safe_mapping(mapping: Mapping[Any, Any], depth: int) -> dict[str, Any]:
    safe: dict[str, Any] = {}
    for key, value in islice(mapping.items(), _MAX_ITEMS):
        name = _safe_text(str(key))
        safe[name] = _REDACTED if _is_secret(name) else _safe(value, depth)
    return safe


@lru_cache(maxsize=256)  # names of fields are our own and few
def _is_secret(key: str) -> bool:
    # The identifier of a challenge in our own table is not the challenge.
    return _SECRET.search(key) is not None and not key.endswith(("_id", "_count"))


def _safe(value: object, depth: int) -> object:
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int) and value.bit_length() <= _MAX_DECIMAL_BITS:
        return value
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        return _safe_container(value, depth + 1)
    return _safe_text(_as_text(value))


def _safe_container(value: Mapping[Any, Any] | Collection[Any], depth: int) -> object:
    if depth > _MAX_DEPTH:
        return "[...]"
    if isinstance(value, Mapping):
        return _safe_mapping(value, depth)
    return [_safe(item, depth) for item in islice(value, _MAX_ITEMS)]


def _as_text(value: object) -> str:
    match value:
        case int():
            return hex(value)
        case bytes() | bytearray() | memoryview():
            return value[:MAX_TEXT_CHARACTERS].hex()
        case _:
            return str(value)


def _safe_text(text: str) -> str:
    if text.isascii() and text.isprintable() and len(text) <= MAX_TEXT_CHARACTERS:
        return text  # nearly every value; the search below takes ten times as long
    # Cut before escaping too: an attacker's megabyte is not worth the work.
    escaped = _escape(text[: MAX_TEXT_CHARACTERS + 1])
    return escaped if len(escaped) <= MAX_TEXT_CHARACTERS else escaped[: MAX_TEXT_CHARACTERS - 3] + "..."


def _escape(text: str) -> str:
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape", "backslashreplace").decode("ascii"), text)
