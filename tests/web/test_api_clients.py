"""Claims about tokens: whose they are, and what is nobody's."""

from __future__ import annotations

import base64
import hashlib

import pytest

from scep_ra.web.api_clients import ApiClient, ApiClients

TOKEN = "6b7e4d1c"
OTHER = "0f3a9e55"


def client(name: str, token: str) -> ApiClient:
    return ApiClient(name=name, token_digest=hashlib.sha256(token.encode()).digest())


CLIENTS = ApiClients([client("vpn", TOKEN), client("ldap", OTHER), client("mistake", "")])


def basic(user: str, token: str) -> str:
    return f"Basic {base64.b64encode(f'{user}:{token}'.encode()).decode()}"


@pytest.mark.parametrize(
    ("header", "name"),
    [
        (f"Bearer {TOKEN}", "vpn"),
        (f"bearer   {OTHER} ", "ldap"),
        (basic("vpn", TOKEN), "vpn"),
        (basic("ldap", OTHER).replace("Basic", "BASIC"), "ldap"),
    ],
)
def test_a_token_tells_the_client(header: str, name: str) -> None:
    """As bearer token, or as the password of the client's own name; schemes are written as anybody likes."""
    found = CLIENTS.find(header)
    assert found is not None
    assert found.name == name


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        TOKEN,
        f"Token {TOKEN}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN.upper()}",
        f"Bearer {hashlib.sha256(TOKEN.encode()).hexdigest()}",
        "Bearer gr\u00fcn",
        "Bearer \udcff",
        "Basic",
        "Basic !",
        "Basic gr\u00fcn",
        basic("", TOKEN),
        basic("ldap", TOKEN),
        basic("VPN", TOKEN),
        basic("vpn", ""),
        basic("mistake", ""),
        basic("vpn", f":{TOKEN}"),
    ],
)
def test_whatever_else_is_nobodys(header: str) -> None:
    """The digest of nothing in the configuration included: somebody's variable was empty."""
    assert CLIENTS.find(header) is None


def test_tokens_are_not_shown() -> None:
    """Not even their digests."""
    assert hashlib.sha256(TOKEN.encode()).hexdigest() not in repr(client("vpn", TOKEN))
    assert "token_digest" not in repr(client("vpn", TOKEN))
