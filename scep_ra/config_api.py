"""The tables [api.NAME] of the configuration: who may use the HTTP API, and for what.

As in `config`, a field is a key and its docstring the help.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from scep_ra.config_base import Table


class ApiConfig(Table):
    """A client of the HTTP API: a headend, a FreeRADIUS with rlm_rest, an AAA system that reports deletions."""

    token_sha256: str = Field(pattern=r"^[0-9a-f]{64}$", examples=["0" * 64])
    """The client's token, hashed by `printf %s TOKEN | sha256sum`; make one by `openssl rand -hex 32`. It is sent as
    bearer token, or by Basic authentication as the password of user NAME. Leave http:// to this machine."""

    scopes: tuple[Literal["authorize", "disconnect", "devices"], ...] = ("authorize",)
    """What the client may do: ask whether devices may connect, cut devices off, report devices that AAA deleted."""

    profile: str = Field(default="", pattern=r"^([a-z0-9_-]{1,64})?$")
    """The [profile.NAME] whose certificates count when the client asks; "" = of all."""

    trustpoint: str = Field(default="", pattern=r"^[!-~]{0,64}$")
    """The label of pki:cert-trustpoint in answers to rlm_rest; "" = none."""

    password: str = "cisco"  # noqa: S105 - a word by convention, no secret
    """What headends send as the password of a device, by the convention of PKI-AAA, for FreeRADIUS to compare; "" =
    FreeRADIUS is told of none."""

    max_deletions: str = Field(default="", pattern=r"^([0-9]{1,9}|(100|[0-9]{1,2})(\.[0-9]+)?%)?$")
    """How many devices may be disconnected within an hour because the client reports them deleted, as a number or a
    percentage ("5%"); a report that goes beyond changes nothing. "" = 10, or 5 % of the devices if that is more."""
