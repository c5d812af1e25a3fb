"""Claims about the security-event stream: where its lines go, that none is lost, and that its file is private."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import structlog

from scep_ra.errors import Misconfigured
from scep_ra.security_events import SECURITY_LOGGER, SecurityEvent, security_event
from scep_ra.telemetry.log import configure_logging

Level = Literal["debug", "info", "warning", "error"]


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    yield
    configure_logging(stream=io.StringIO())  # closes the file
    logging.getLogger(SECURITY_LOGGER).setLevel(logging.NOTSET)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "security.log"


def configured(path: Path | None, level: Level = "info") -> io.StringIO:
    stream = io.StringIO()
    configure_logging(level=level, output="json", stream=stream, security=path)
    return stream


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def refuse(**facts: object) -> None:
    security_event(SecurityEvent.REQUEST_REFUSED, code="not_authorized", **facts)


def test_without_a_file_security_events_are_marked_among_the_others() -> None:
    """A collector finds them by `stream`; other lines have no such mark."""
    stream = configured(None)
    refuse(source="192.0.2.1")
    structlog.stdlib.get_logger("scep_ra.web").warning("busy")

    refusal, other = lines(stream.getvalue())
    assert (refusal["event"], refusal["stream"], refusal["code"]) == ("request_refused", "security", "not_authorized")
    assert "stream" not in other


def test_with_a_file_they_stand_there_alone(path: Path) -> None:
    """As JSON lines, whatever the format of the other logs."""
    stream = configured(path)
    refuse(source="192.0.2.1")
    structlog.stdlib.get_logger("scep_ra.web").warning("busy")

    assert [line["event"] for line in lines(path.read_text())] == ["request_refused"]
    assert [line["event"] for line in lines(stream.getvalue())] == ["busy"]


def test_the_file_is_private(path: Path) -> None:
    """It tells who is refused and why."""
    configured(path)

    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_there_is_continued(path: Path) -> None:
    """A restart loses nothing."""
    path.write_text('{"event": "before"}\n')
    configured(path)
    refuse()

    assert [line["event"] for line in lines(path.read_text())] == ["before", "request_refused"]


def test_after_a_rename_a_new_file_is_begun(path: Path) -> None:
    """Logrotate needs no signal."""
    configured(path)
    refuse(number=1)
    path.rename(path.with_suffix(".1"))
    refuse(number=2)

    assert [line["number"] for line in lines(path.with_suffix(".1").read_text())] == [1]
    assert [line["number"] for line in lines(path.read_text())] == [2]
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_the_file_cannot_take_goes_with_the_other_logs(tmp_path: Path) -> None:
    """A directory that was taken away costs no event, and comes back into use when it is there again."""
    directory = tmp_path / "logs"
    directory.mkdir()
    stream = configured(directory / "security.log")
    (directory / "security.log").unlink()
    directory.rmdir()
    refuse(number=1)
    directory.mkdir()
    refuse(number=2)

    assert [line["number"] for line in lines(stream.getvalue())] == [1]
    assert [line["number"] for line in lines((directory / "security.log").read_text())] == [2]


def test_a_full_disk_costs_no_event(path: Path) -> None:
    """What cannot be written goes with the other logs, without a traceback of the secrets in it."""
    stream = configured(path)
    handler = logging.getLogger(SECURITY_LOGGER).handlers[0]
    assert isinstance(handler, logging.StreamHandler)

    class Full(io.StringIO):
        def write(self, _text: str, /) -> int:
            raise OSError(28, "No space left on device")

    handler.stream.close()
    handler.stream = Full()
    refuse(password="hunter2")

    assert [line["password"] for line in lines(stream.getvalue())] == ["[redacted]"]


def test_a_file_that_cannot_be_opened_is_said_at_the_start(tmp_path: Path) -> None:
    """The message names the file and the option."""
    with pytest.raises(Misconfigured, match=r"no/security\.log .*\[log\] security"):
        configured(tmp_path / "no" / "security.log")


@pytest.mark.parametrize("with_file", [True, False])
def test_no_level_silences_them(path: Path, with_file: bool) -> None:
    """The level is for the other logs."""
    stream = configured(path if with_file else None, level="error")
    refuse()
    security_event(SecurityEvent.AUDIT_HEAD, head="a:1:00")
    structlog.stdlib.get_logger("scep_ra.web").warning("busy")

    written = lines(path.read_text() if with_file else stream.getvalue())
    assert [(line["event"], line["level"]) for line in written] == [
        ("request_refused", "warning"),
        ("audit_head", "info"),
    ]


def test_a_line_is_as_safe_as_any_other(path: Path) -> None:
    """Secrets are left out, text is escaped and cut."""
    configured(path)
    refuse(password="hunter2", reason="\x1b[2J" + "x" * 300)

    [line] = lines(path.read_text())
    assert (line["password"], len(line["reason"]), line["reason"][:4]) == ("[redacted]", 256, "\\x1b")


def test_one_source_cannot_fill_the_stream(path: Path) -> None:
    """A hundred refusals a minute are written and the rest is counted; another source is heard, and every head."""
    configured(path)
    for _ in range(150):
        refuse(source="192.0.2.1")
        security_event(SecurityEvent.AUDIT_HEAD, head="a:1:00")
    refuse(source="192.0.2.2")
    written = [line["event"] for line in lines(path.read_text())]

    assert [written.count(name) for name in ("request_refused", "log_limited", "audit_head")] == [101, 1, 150]


def test_setting_up_again_leaves_one_destination(path: Path) -> None:
    """Commands set logging up twice; no event is written twice."""
    configured(path)
    configured(path)
    refuse()

    assert len(lines(path.read_text())) == 1
