"""The tables of the configuration about devices that are cut off: who is told, and who finds out.

As in `config`, a field is a key and its docstring the help. Headends have tables of their own.
"""

from __future__ import annotations

from pydantic import Field

from scep_ra.config_base import Table


class WebhookConfig(Table):
    """A web service that is told when a device was disconnected; docs/disconnect.md shows what it gets."""

    url: str = Field(
        pattern=r"^(https://[^\s/]+|http://(127\.0\.0\.1|\[::1\]|localhost)(:[0-9]{1,5})?)(/\S*)?$",
        examples=["https://siem.example.com/scep-ra"],
    )
    """Where the JSON is posted; http:// only to this machine."""

    secret_file: str = ""
    """File of mode 0600 with a secret in base64 (`openssl rand -base64 32`) that signs what is posted, as step-ca does
    (X-Smallstep-Signature: HMAC-SHA256 in hexadecimal), relative to the data directory; "" = unsigned."""

    ca_file: str = ""
    """PEM file with the CAs of the service, relative to the data directory; "" = those of the system."""


class AaaSyncConfig(Table):
    """Asking external AAA systems again about all devices with a live certificate, and disconnecting those it rejects.

    Authorizers other than "registry" and "accept-all" are external. `scep-ra aaa sync` does the same by hand.
    """

    interval_min: int = Field(default=0, ge=0, le=10080)
    """Minutes from one round to the next; 0 = off."""

    max_deletions: str = Field(default="", pattern=r"^([0-9]{1,9}|(100|[0-9]{1,2})(\.[0-9]+)?%)?$")
    """How many devices one round may disconnect, as a number or a percentage ("5%"); with more nothing is done, and a
    security event tells. "" = 10, or 5 % of the devices if that is more."""
