"""The security-event stream: a file of its own, which a collector follows and logrotate renames.

Only the destination is decided here; the events are `security_events`', what a line may hold is `telemetry.log`'s.
"""

from __future__ import annotations

import logging
import os
from io import TextIOWrapper
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Final

from structlog.typing import EventDict, WrappedLogger

from scep_ra.errors import Misconfigured
from scep_ra.security_events import SECURITY_LOGGER

_PRIVATE_FILE: Final = 0o600


class SecurityFile(WatchedFileHandler):
    """A private file, opened anew after it was renamed or removed; what it cannot take goes with the other logs."""

    def _open(self) -> TextIOWrapper:
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, _PRIVATE_FILE)
        return os.fdopen(descriptor, "a", encoding="utf-8")

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record; a full disk or a directory that is gone costs neither the request nor the event."""
        try:
            super().emit(record)
        except OSError:  # from opening it anew, which logging does not guard
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging calls it so
        """Hand the record to the other logs."""
        logging.getLogger().handle(record)


def route_security_events(path: Path | None, formatter: logging.Formatter) -> None:
    """Send security events to this file, or with the other logs; raise Misconfigured when it cannot be opened."""
    logger = logging.getLogger(SECURITY_LOGGER)
    # Whatever level the other logs have: nobody who turns those down means to miss an attack.
    logger.setLevel(logging.INFO)
    for old in logger.handlers[:]:
        logger.removeHandler(old)
        old.close()
    logger.propagate = path is None
    if path is None:
        return
    try:
        handler = SecurityFile(path)
    except OSError as error:
        raise Misconfigured(
            f"{path} cannot hold the security events: {error.strerror}; name another file in [log] security"
        ) from error
    handler.setFormatter(formatter)
    logger.addHandler(handler)


def mark_stream(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Mark security events, so that a collector can tell them from the other logs on the same stream."""
    if event.get("logger") == SECURITY_LOGGER:
        event["stream"] = "security"
    return event
