"""Named parameters in statements, found where they are parameters and nowhere else."""

from __future__ import annotations

import pytest

from scep_ra.aaa.base import AccessRequest
from scep_ra.aaa.statements import named, numbered
from scep_ra.errors import ConfigurationError
from scep_ra.identity.types import DeviceID, DeviceIDKind

QUESTION = AccessRequest(
    device_id=DeviceID(kind=DeviceIDKind.SERIAL, value="SN1"),
    profile="vpn",
    source="192.0.2.1",
    renewal=True,
    transaction_id="T1",
)


@pytest.mark.parametrize(
    ("text", "sql", "parameters"),
    [
        ("SELECT 1", "SELECT 1", ()),
        ("SELECT :device", "SELECT $1::text", ("device",)),
        ("a = :device_value AND b = :renewal", "a = $1::text AND b = $2::boolean", ("device_value", "renewal")),
        ("f(:source, :profile, :source)", "f($1::text, $2::text, $1::text)", ("source", "profile")),
        (":device_value::bigint", "$1::text::bigint", ("device_value",)),
        ("':device' \":device\" :device", "':device' \":device\" $1::text", ("device",)),
        ("'it''s :x' :device", "'it''s :x' $1::text", ("device",)),
        ("-- :x\n:device", "-- :x\n$1::text", ("device",)),
        ("/* :x */ :device", "/* :x */ $1::text", ("device",)),
        ("$$ :x $$ $q$ :y $$ $q$ :device", "$$ :x $$ $q$ :y $$ $q$ $1::text", ("device",)),
        ("now()::date", "now()::date", ()),
        ("a[1:2]", "a[1:2]", ()),
    ],
)
def test_parameters_are_numbered_and_declared(text: str, sql: str, parameters: tuple[str, ...]) -> None:
    """Text in quotes and comments stays as it is, and so do casts."""
    statement = numbered(text)
    assert (statement.sql, statement.parameters) == (sql, parameters)
    assert named(text).parameters == parameters
    assert named(text).sql == text


def test_every_parameter_has_its_value() -> None:
    """All that there are."""
    text = ":device :device_kind :device_value :profile :renewal :source :transaction_id"
    assert list(numbered(text).values(QUESTION).values()) == [
        *("serial:SN1", "serial", "SN1", "vpn", True, "192.0.2.1", "T1")
    ]


def test_an_unknown_parameter_is_refused_with_those_that_there_are() -> None:
    """At start, not when a device asks."""
    with pytest.raises(ConfigurationError, match="parameter :serial, which there is not; there are :device, :device_k"):
        named("SELECT :serial")
