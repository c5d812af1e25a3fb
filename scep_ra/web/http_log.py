"""The logger that aiohttp's server writes to, made fit for the Internet.

aiohttp logs a traceback for every request it cannot parse. Here that becomes one event `http_malformed`, which
`telemetry` limits per source; whatever else aiohttp logs is a fault of ours and keeps its traceback.
"""

from __future__ import annotations

import logging
from typing import Final

import structlog
from aiohttp.http import HttpProcessingError

_log = structlog.stdlib.get_logger(__name__)


def report_malformed(record: logging.LogRecord) -> bool:
    """Log a record about malformed HTTP as `http_malformed` and return False; return True for a record to keep."""
    error = record.exc_info[1] if record.exc_info else None
    if not isinstance(error, HttpProcessingError):
        return record.levelno > logging.DEBUG
    # The only argument is the peer's address. The first line names the fault; those below quote the request, where
    # an Authorization header may stand.
    source = str(record.args[0]) if isinstance(record.args, tuple) and record.args else ""
    _log.info("http_malformed", source=source, kind=type(error).__name__, reason=error.message.partition("\n")[0])
    return False


HTTP_LOGGER: Final = logging.getLogger("scep_ra.web.http")
# aiohttp logs a bad method (TLS or noise on the HTTP port) at DEBUG; the filter must see it.
HTTP_LOGGER.setLevel(logging.DEBUG)
HTTP_LOGGER.addFilter(report_malformed)
