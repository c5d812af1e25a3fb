"""Templates over the question: what is filled in stays a value."""

from __future__ import annotations

import pytest

from scep_ra.aaa.base import AccessRequest
from scep_ra.aaa.templates import check_template, fill_template
from scep_ra.errors import ConfigurationError
from scep_ra.identity.types import DeviceID, DeviceIDKind


def ask(value: str) -> AccessRequest:
    device_id = DeviceID(kind=DeviceIDKind.SERIAL, value=value)
    return AccessRequest(device_id=device_id, profile="vpn", source="", renewal=False)


def test_every_variable_has_its_value() -> None:
    """And the text around them stays."""
    template = "<{device}|{device.kind}|{device.value}|{profile}>"
    check_template(template)
    assert fill_template(template, ask("SN1")) == "<serial:SN1|serial|SN1|vpn>"


def test_values_are_escaped_and_not_read_again() -> None:
    """Braces in a device ID name no variable, and its other signs are for the escape to judge."""
    filled = fill_template("({device.value})", ask("{profile}*)"), escape=lambda value: value.replace("*", "\\2a"))
    assert filled == "({PROFILE}\\2a))"


@pytest.mark.parametrize(
    ("text", "found"),
    [("{user}", "{user}"), ("{}", "{}"), ("{device.value", "{"), ("device}", "}"), ("{{profile}}", "{")],
)
def test_a_template_that_cannot_be_filled_is_refused_with_what_there_is(text: str, found: str) -> None:
    """Before anything is served."""
    with pytest.raises(ConfigurationError) as caught:
        check_template(text)
    assert str(caught.value).endswith(
        f"{found} is no variable; there are {{device}}, {{device.kind}}, {{device.value}}, {{profile}}"
    )
