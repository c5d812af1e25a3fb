"""Tests of `scep_ra.telemetry.log`: what a log line may hold."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any, Literal

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from scep_ra.telemetry.log import MAX_TEXT_CHARACTERS, configure_logging, make_safe, render_json, render_text


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    # basicConfig(force=True) closes what it removes.
    root.handlers.clear()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def logged(event: str = "tried", *, output: Literal["json", "text"] = "json", **values: Any) -> str:
    stream = io.StringIO()
    configure_logging(output=output, stream=stream)
    structlog.stdlib.get_logger("scep_ra.test").warning(event, **values)
    return stream.getvalue()


def safe(**values: object) -> dict[str, Any]:
    return dict(make_safe(None, "info", {"event": "tried", **values}))


def test_an_event_is_one_line_of_json() -> None:
    """Time, level and event lead; the logger's name and the keywords follow."""
    line = logged(profile="lab", tries=3)
    record = json.loads(line)

    assert line.count("\n") == 1
    assert list(record)[:3] == ["timestamp", "level", "event"]
    assert record["timestamp"].endswith("Z")
    assert (record["level"], record["logger"], record["profile"], record["tries"]) == (
        "warning",
        "scep_ra.test",
        "lab",
        3,
    )


def test_an_event_is_one_line_of_text() -> None:
    """Values with spaces, quotes or equals signs are quoted, so that a line reads in one way only."""
    line = logged(output="text", profile="lab", reason='a "b" c=d', ids=["x", 1])

    assert line.count("\n") == 1
    assert line.split(" ", 1)[1] == (
        r'warning tried profile=lab reason="a \"b\" c=d" ids="[\"x\", 1]" logger=scep_ra.test' + "\n"
    )


@pytest.mark.parametrize(("terminal", "starts_with"), [(True, "2"), (False, "{")])
def test_auto_is_text_on_a_terminal_and_json_elsewhere(terminal: bool, starts_with: str) -> None:
    """People read terminals; machines read pipes."""

    class Stream(io.StringIO):
        def isatty(self) -> bool:
            return terminal

    stream = Stream()
    configure_logging(stream=stream)
    structlog.stdlib.get_logger().info("tried")

    assert stream.getvalue().startswith(starts_with)


def test_standard_error_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output belongs to commands."""
    configure_logging(output="json")
    structlog.stdlib.get_logger().info("tried")

    captured = capsys.readouterr()
    assert (captured.out, '"tried"' in captured.err) == ("", True)


def test_events_below_the_level_are_not_written() -> None:
    """The level of the configuration is the least one shown, for us and for libraries."""
    stream = io.StringIO()
    configure_logging(level="warning", output="json", stream=stream)
    structlog.stdlib.get_logger("a").info("ours")
    logging.getLogger("b").info("theirs")

    assert stream.getvalue() == ""


def test_a_librarys_record_takes_the_same_way() -> None:
    """Standard logging, with arguments and extras, gives the same kind of line, escaped alike."""
    stream = io.StringIO()
    configure_logging(output="json", stream=stream)
    logging.getLogger("library").error("from %s", "a\x1b[31mb", extra={"password": "p", "colour": "red"})
    record = json.loads(stream.getvalue())

    assert record["event"] == r"from a\x1b[31mb"
    assert (record["logger"], record["level"], record["colour"]) == ("library", "error", "red")
    assert record["password"] == "[redacted]"


def test_names_bound_to_the_context_appear() -> None:
    """A request's names are on every line that it causes."""
    with structlog.contextvars.bound_contextvars(request_id="r1"):
        assert json.loads(logged())["request_id"] == "r1"


@pytest.mark.parametrize(
    "key",
    [
        "challenge",
        "challengePassword",
        "challenge_password",
        "password",
        "passwd",
        "bind_password",
        "passphrase",
        "shared_secret",
        "Authorization",
        "set-cookie",
        "private_key",
        "privateKey",
    ],
)
def test_secrets_are_not_written(key: str) -> None:
    """What a key calls secret is left out, at any depth and in both formats."""
    outputs: tuple[Literal["json", "text"], ...] = ("json", "text")
    for output in outputs:
        line = logged(output=output, **{key: "hunter2"}, headers=[{key: "hunter2"}])
        assert "hunter2" not in line
        assert line.count("[redacted]") == 2


@pytest.mark.parametrize("key", ["challenge_id", "secret_count", "profile"])
def test_what_only_names_a_secret_is_written(key: str) -> None:
    """An identifier or a number is not the secret itself."""
    assert safe(**{key: "x"})[key] == "x"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a\r\nb", r"a\r\nb"),
        ("\x1b[2J", r"\x1b[2J"),
        ("\x9b2J", r"\x9b2J"),
        ("a\u202eb", r"a\u202eb"),
        ("a\u2066b", r"a\u2066b"),
        ("a\u2028b", r"a\u2028b"),
        ("a\u200bb", r"a\u200bb"),
        ("a\ufeffb", r"a\ufeffb"),
        ("a\ud800b", r"a\ud800b"),
        ("a\U000e0041b", r"a\U000e0041b"),
        ("Zürich 東京", "Zürich 東京"),
    ],
)
def test_what_could_act_on_a_terminal_is_escaped(text: str, written: str) -> None:
    """Controls, ANSI, bidirectional and invisible characters are shown, letters of all scripts stay."""
    assert safe(text=text, **{text: 1}) == {"event": "tried", "text": written, written: 1}


def test_text_is_cut() -> None:
    """A value is at most 256 characters long, escapes included, and shows that it was cut."""
    assert safe(text="a" * 256)["text"] == "a" * 256
    assert safe(text="a" * 257)["text"] == "a" * 253 + "..."
    assert len(safe(text="\x1b" * 10**6)["text"]) == MAX_TEXT_CHARACTERS


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, None),
        (True, True),
        (1.5, 1.5),
        (2**1000, 2**1000),
        (b"\x00\xff", "00ff"),
        (("a\n", 1), ["a\\n", 1]),
        ({"a": {"b": "\n"}}, {"a": {"b": "\\n"}}),
        (frozenset({"x"}), ["x"]),
        (OSError("no\n"), "no\\n"),
        ([[[[["deep"]]]]], [[[["[...]"]]]]),
        ([1] * 100, [1] * 32),
    ],
)
def test_values_of_any_kind_are_written_within_bounds(value: object, written: object) -> None:
    """Containers are followed a few levels and items deep; octets are hexadecimal; the rest is text."""
    assert safe(value=value)["value"] == written


def test_an_endless_number_is_written_and_cut() -> None:
    """Python refuses to print integers of more than 4300 digits; a log line must not fail for it."""
    line = logged(number=1 << 100000)

    assert json.loads(line)["number"].startswith("0x1000")


def test_a_traceback_is_kept_and_numbered() -> None:
    """A bug's traceback stays whole, in a JSON string, beside an incident number."""
    stream = io.StringIO()
    configure_logging(output="json", stream=stream)
    try:
        int("a\x1bbug", 36)
    except ValueError:
        structlog.stdlib.get_logger().exception("internal_error")
    record = json.loads(stream.getvalue())

    assert record["exception"].startswith("Traceback (most recent call last):\n")
    assert record["exception"].endswith("ValueError: invalid literal for int() with base 36: 'a\\x1bbug'")
    assert len(record["incident"]) == 8


def test_an_incident_number_that_was_told_the_peer_is_kept() -> None:
    """The number in a 500 answer is the number in the log."""
    record = json.loads(logged(exc_info=RuntimeError("bug"), incident="12345678"))

    assert record["incident"] == "12345678"


def test_no_line_of_a_traceback_can_pass_for_an_event() -> None:
    """In text every line of a traceback is indented, whatever newlines the message has."""
    forged = "\x1b[2Jx\n2026-01-01T00:00:00Z info certificate_issued"
    lines = logged(output="text", exc_info=RuntimeError(forged)).splitlines()

    assert "incident=" in lines[0]
    assert "\x1b" not in "".join(lines)
    assert len(lines) > 1
    assert all(line.startswith("    | ") for line in lines[1:])


def test_a_stranger_cannot_fill_the_log() -> None:
    """Of many malformed requests by one source ten lines and a summary are written, of our own errors all."""
    stream = io.StringIO()
    configure_logging(output="json", stream=stream)
    log = structlog.stdlib.get_logger()
    for _ in range(50):
        log.info("http_malformed", source="192.0.2.1")
        log.error("backend_failed", source="192.0.2.1")
    events = [json.loads(line)["event"] for line in stream.getvalue().splitlines()]

    assert [events.count(name) for name in ("http_malformed", "log_limited", "backend_failed")] == [10, 1, 50]


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), _VALUES, max_size=8), st.text())
def test_any_event_is_one_printable_line(values: dict[str, Any], event: str) -> None:
    """No value can start a new line or hide what stands in it."""
    for render in (render_json, render_text):
        line = str(
            render(
                None, "info", make_safe(None, "info", {**values, "level": "info", "event": event, "exception": None})
            )
        )
        assert not set(line) & set("\n\r\x1b\x85\u2028\u202e")
