"""Claims about templates of names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scep_ra.enrollment.errors import NamingImpossible
from scep_ra.enrollment.name_templates import ValueOf, Variable, read_name_template, read_text_template
from scep_ra.pki.names import format_name, parse_name, rdns


def given_values(**values: str) -> ValueOf:
    """Look variables up by the last part of their name; None when they are not there."""
    return lambda variable: values.get(variable.name.rpartition(".")[2])


def filled(template: str, **values: str) -> str:
    return format_name(read_name_template(template).fill(given_values(**values)))


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("serialNumber={device.value},CN={attribute.host},O=Example", "serialNumber=S1,CN=r1,O=Example"),
        ("serialNumber={device.value}+CN={attribute.host},O=X", "CN=r1+serialNumber=S1,O=X"),
        ("/O=Example, Inc./CN={attribute.host}", r"O=Example\, Inc.,CN=r1"),
        ("CN={attribute.host}.{attribute.domain}", "CN=r1.example.com"),
        ("CN={{{attribute.host}}}", "CN={r1}"),
        ("CN=x,OU={attribute.none?}", "CN=x"),
        ("CN=x+OU={attribute.none?}", "CN=x"),
        ("CN={attribute.host}-{attribute.none?},O=X", "O=X"),
        ("OU={attribute.none?}", ""),
        ("2.5.4.3={csr.commonName}", "CN=claimed"),
    ],
)
def test_a_template_becomes_a_name_in_the_order_written(template: str, expected: str) -> None:
    """What has no value is left out with everything around it, up to the RDN."""
    values = {"value": "S1", "host": "r1", "domain": "example.com", "commonName": "claimed"}
    assert filled(template, **values) == expected


INJECTIONS = (
    "a,CN=root",
    "a+CN=root",
    "a/CN=root",
    "{profile}",
    "{{",
    "a\\",
    '"',
    "#04",
    " a ",
    "a\0b",
    "a\\2CCN=b",
    "=",
)


@pytest.mark.parametrize("value", INJECTIONS)
def test_a_value_is_text_whatever_it_looks_like(value: str) -> None:
    """It is never read as RFC 4514, and never as a template."""
    ((first,), (second,)) = rdns(read_name_template("CN={attribute.x},O=Example").fill(given_values(x=value)))
    assert (first.text, second.text) == (value, "Example")


@given(first=st.text(min_size=1, max_size=64), second=st.text(min_size=1, max_size=64))
def test_no_value_adds_or_removes_an_attribute(first: str, second: str) -> None:
    """The shape of a name is the template's, its texts are the values'."""
    name = read_name_template("CN={attribute.a},OU={attribute.b}+O=Example").fill(given_values(a=first, b=second))
    (one,), pair = rdns(name)
    assert one.text == first
    assert {each.text for each in pair} == {second, "Example"}


@pytest.mark.parametrize(
    ("template", "value", "pattern"),
    [
        ("CN={user}", "x" * 65, "commonName 'x+'... has 65 characters, RFC 5280 allows 64"),
        ("serialNumber={user}", "x" * 65, "allows 64"),
        ("OU={user}", "x" * 65, "allows 64"),
        ("L={user}", "x" * 129, "allows 128"),
        ("emailAddress={user}", "x" * 256, "allows 255"),
        ("GN={user}", "x" * 32769, "allows 32768"),
        ("C={user}", "USA", "'USA' is not a country of two letters"),
        ("C={user}", "U1", "'U1' is not a country of two letters"),
    ],
)
def test_values_stay_within_the_bounds_of_rfc_5280(template: str, value: str, pattern: str) -> None:
    """RFC 5280 appendix A: others refuse longer ones."""
    with pytest.raises(NamingImpossible, match=pattern):
        filled(template, user=value)


def test_a_value_at_the_bound_is_taken() -> None:
    """Bounds are inclusive."""
    assert filled("CN={user},C=US", user="x" * 64) == f"CN={'x' * 64},C=US"


@pytest.mark.parametrize(
    ("template", "pattern"),
    [
        ("router1", "'router1': cannot read the name at 'router1': write KEY=value"),
        ("XX={user}", "unknown name attribute 'XX'"),
        ("CN=", "commonName has no value"),
        (
            "CN={hostname}",
            r"no variable \{hostname\}: use \{device\}, \{device.kind\}, .*\{attribute.NAME\}, \{csr.KEY",
        ),
        ("CN={attribute.}", r"no variable \{attribute\.\}"),
        ("CN={device.serial}", r"no variable \{device\.serial\}"),
        ("CN={csr.shoeSize}", r"\{csr\.shoeSize\}: unknown name attribute"),
        ("CN=a{user", r"'a\{user': cannot read '\{user': write \{NAME\}, and \{\{ or \}\} for a brace"),
        ("CN=user}", r"cannot read '\}'"),
        ("CN={}", r"cannot read '\{\}'"),
        ("CN={user??}", "cannot read"),
        ("C=Germany", "not a country"),
    ],
)
def test_a_template_that_cannot_be_read_says_where_and_what_is_allowed(template: str, pattern: str) -> None:
    """At start, to the operator."""
    with pytest.raises(ValueError, match=pattern):
        read_name_template(template)


def test_a_text_template_tells_its_parts() -> None:
    """What is constant can be checked before there are values."""
    variable = Variable(name="user", optional=True)
    assert read_text_template("a{{b").constant == "a{b"
    assert read_text_template("a{user?}").constant is None
    assert read_text_template("a{user?}").start == "a"
    assert read_text_template("{user?}").start == ""
    assert read_text_template("{user?}").only_variable == variable
    assert read_text_template("{user?}b").only_variable is None
    assert str(variable) == "{user}"


def test_names_without_variables_are_names() -> None:
    """A template may be constant."""
    assert read_name_template(r"CN=a\,b").fill(given_values()) == parse_name(r"CN=a\,b")
