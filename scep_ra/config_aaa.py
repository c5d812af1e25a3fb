"""The tables [aaa.NAME] of the configuration: one class for each `type` of authorizer, and one for all plug-ins.

As in `config`, a field is a key and its docstring the help. A field without a default has to be written; its first
example stands in the template. What a key does is its backend's business (`aaa`).
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag

from scep_ra.config_base import Name, Table

_PLUG_IN: Final = "plug-in"
_DEFAULT_TYPE: Final = "registry"


class AuthorizerTable(Table):
    """What the tables of all types have in common."""

    type: str
    """Kind of backend."""

    timeout_s: float = Field(default=5.0, gt=0, le=60)
    """How long one question may take, repetitions and all; later is no answer."""

    on_error: Literal["pending", "unavailable"] = "pending"
    """What devices hear while there is no answer: "pending" = wait, the request is kept and goes on when the backend is
    back; "unavailable" = HTTP 503, nothing is kept. It is never a yes. Of a chain's members the chain's own holds."""

    breaker_failures: int = Field(default=5, ge=1)
    """After so many failures in a row the backend is left alone for a while, so that requests do not queue for it."""

    breaker_reset_s: float = Field(default=30.0, gt=0)
    """For how long; a single question then finds out whether it is back."""

    cache_s: float = Field(default=0.0, ge=0, le=60)
    """How long a yes to the very same question is repeated without asking; 0 = always ask. A device cut off meanwhile
    in AAA alone keeps its yes for so long; `scep-ra device disable` does not wait for it."""


class RegistryConfig(AuthorizerTable):
    """A PKI-AAA backend: decides which device may have a certificate. This one is the embedded list of devices."""

    type: Literal["registry"] = "registry"
    """Kind of backend: "registry" is the list that `scep-ra device` keeps; the examples below are the other kinds."""


class AcceptAllConfig(AuthorizerTable):
    """Says yes to every device: for a lab."""

    type: Literal["accept-all"] = "accept-all"
    """Kind of backend."""


class RadiusConfig(AuthorizerTable):
    """A RADIUS server that knows devices as users, by the convention of Cisco PKI-AAA."""

    type: Literal["radius"] = "radius"
    """Kind of backend."""

    servers: tuple[str, ...] = Field(min_length=1, examples=[["127.0.0.1:1812"]])
    """ADDRESS:PORT of the servers, [ADDRESS]:PORT for IPv6; the next is asked when one does not answer."""

    secret_file: str = "radius.secret"  # noqa: S105 - the name of a file
    """File of mode 0600 with the shared secret alone, relative to the data directory."""

    user_name: str = "{device.value}"
    """User-Name: {device} (KIND:VALUE), {device.value}, {device.kind} and {profile} stand for what is asked about."""

    password: str = "cisco"  # noqa: S105 - a word that everybody knows; the certificate has authenticated the device
    """User-Password: a word by convention, no secret."""

    nas_identifier: str = Field(default="scep-ra", pattern=r"^[!-~]{1,64}$")
    """NAS-Identifier, by which the server may know us."""

    require_message_authenticator: Literal["yes", "auto", "no"] = "yes"
    """Whether answers must be signed (BlastRADIUS, CVE-2024-3596): "auto" = from the first that is. FreeRADIUS before
    3.2.5 signs only if told to; docs/aaa.md says how."""

    require_cert_application: bool = True
    """Accept only with the AV pair pki:cert-application=all."""

    trustpoint: str = ""
    """The label that pki:cert-trustpoint must have where the server sends one; "" = any."""

    retransmit_s: float = Field(default=0.8, gt=0, le=10)
    """How long to wait before a packet is sent again; doubled each time."""

    tries: int = Field(default=2, ge=1, le=10)
    """How often a packet is sent to one server; the turn of the last server has to come within timeout_s."""

    dead_s: float = Field(default=30.0, ge=0)
    """How long a server that did not answer is asked last."""


class LdapConfig(AuthorizerTable):
    """An LDAP directory with an entry for each device."""

    type: Literal["ldap"] = "ldap"
    """Kind of backend."""

    url: str = Field(pattern=r"^ldap(s|i)?://\S*$", examples=["ldaps://ldap.example.com"])
    """ldaps://HOST:PORT, or ldap://HOST:PORT with start_tls; ldapi://%2Frun%2Fslapd%2Fldapi is a Unix socket."""

    start_tls: bool = False
    """Turn ldap:// into TLS before anything is asked."""

    insecure_plaintext: bool = False
    """Allow ldap:// without TLS to another machine: whoever is on the way reads the password and says who may enroll.
    Certificates cannot be left unverified."""

    ca_file: str = ""
    """PEM file with the CAs of the server, relative to the data directory; "" = those of the system."""

    bind_dn: str = ""
    """Who we are to the directory; "" = anonymous."""

    password_file: str = ""
    """File of mode 0600 with the password of bind_dn alone, relative to the data directory."""

    base: str = Field(min_length=1, examples=["ou=devices,dc=example,dc=com"])
    """Where the entries are."""

    scope: Literal["one", "sub"] = "sub"
    """Directly below the base, or at any depth."""

    filter: str = "(&(objectClass=device)(serialNumber={device.value}))"
    """Which entry is the device's: {device.value}, {device.kind}, {device} (KIND:VALUE) and {profile} are filled in,
    escaped. One entry found is a yes, none or several are a no. Device IDs that are not ASCII are a no, unasked."""

    attributes: dict[str, str] = {"user": "owner"}
    """What to read, as {NAME = "ldapAttribute"}; docs/aaa.md says which names mean something."""

    accept_if: dict[str, tuple[str, ...]] = {}
    """What the entry must say besides being there, as {ldapAttribute = ["value", "other"]}, to the letter; {} =
    nothing."""

    pool_size: int = Field(default=4, ge=1, le=64)
    """Connections at most."""


class HttpConfig(AuthorizerTable):
    """A web service that speaks the webhooks of step-ca."""

    type: Literal["http"] = "http"
    """Kind of backend."""

    url: str = Field(pattern=r"^https?://[^\s/]+\S*$", examples=["https://aaa.example.com/scep"])
    """Where questions are sent; http:// only to this machine."""

    insecure_plaintext: bool = False
    """Send questions by http:// to other machines too: whoever is on the way reads them, and answers as he likes."""

    kind: Literal["AUTHORIZING", "SCEPCHALLENGE"] = "AUTHORIZING"
    """Which webhook: AUTHORIZING asks about devices, as an `authorizer`; SCEPCHALLENGE hands over the challenge for a
    service that made it, as a profile's `challenge_authorizer`."""

    secret_file: str = ""
    """File of mode 0600 with the base64 secret that signs questions (X-Smallstep-Signature), relative to the data
    directory; "" = unsigned."""

    webhook_id: str = Field(default="scep-ra", pattern=r"^[!-~]{1,64}$")
    """X-Smallstep-Webhook-ID."""

    token_file: str = ""
    """File of mode 0600 with the bearer token alone, relative to the data directory; "" = none."""

    user: str = Field(default="", pattern=r"^[!-9;-~]*$")
    """User name of Basic authentication, whose password is then in token_file; "" = a bearer token."""

    ca_file: str = ""
    """PEM file with the CAs of the service, relative to the data directory; "" = those of the system."""

    max_reply_bytes: int = Field(default=65536, ge=1024, le=1048576)
    """Longer replies are no answer."""

    notify: bool = False
    """Tell the service what became of requests, too: the certificate, or why there is none (webhook NOTIFYING)."""


class SqlConfig(AuthorizerTable):
    """A table or stored procedure in a database; PostgreSQL needs pip install "scep-ra[postgresql]"."""

    type: Literal["sql"] = "sql"
    """Kind of backend."""

    dsn: str = ""
    """PostgreSQL: postgresql://USER@HOST:PORT/DATABASE without the password, of another machine with
    ?sslmode=verify-full (or disable, where something else protects the way); "" = SQLite."""

    password_file: str = ""
    """PostgreSQL: file of mode 0600 with the password alone, relative to the data directory. "" = PGPASSWORD or
    ~/.pgpass, as for psql."""

    path: str = "devices.sqlite"
    """SQLite: database file, relative to the data directory; only read."""

    authorize: str = Field(
        min_length=1,
        examples=['SELECT owner AS "user", valid_until FROM devices WHERE serial = :device_value AND enabled'],
    )
    """The question, a single statement. :device_value, :device_kind, :device (KIND:VALUE), :profile, :source, :renewal
    and :transaction_id are parameters. One row is a yes and its columns the attributes, none or several are a no; the
    columns allow, defer and reason say more (docs/aaa.md). After a failure of the connection it may run twice."""

    pool_size: int = Field(default=4, ge=1, le=64)
    """PostgreSQL: connections at most."""


class CommandConfig(AuthorizerTable):
    """A program that is run for each question."""

    type: Literal["command"] = "command"
    """Kind of backend."""

    argv: tuple[str, ...] = Field(min_length=1, examples=[["/usr/local/bin/authorize-device"]])
    """The program with its full path, and its arguments; no shell reads them. It reads the question as JSON on standard
    input and answers on standard output: exit status 0 is a yes, 1 a no, 2 not yet, anything else no answer."""

    max_output_bytes: int = Field(default=65536, ge=1024, le=1048576)
    """A longer answer is no answer."""

    max_running: int = Field(default=8, ge=1, le=256)
    """Programs that run at a time; further questions wait."""


class ChainTable(AuthorizerTable):
    """What chains have in common."""

    timeout_s: float = Field(default=15.0, gt=0, le=60)
    """How long the chain may take as a whole: members of "first" that do not answer use up their own times in turn."""

    members: tuple[Name, ...] = Field(min_length=1, examples=[["registry"]])
    """The [aaa.NAME] to ask, in order; they may be chains themselves."""


class AllConfig(ChainTable):
    """A chain that says yes when every member does."""

    type: Literal["all"] = "all"
    """Kind of chain: all members are asked at once. Of an attribute that several give, the first member's holds; of
    ends the earliest; of services those that all who speak of services grant."""


class AnyConfig(ChainTable):
    """A chain that says yes when one member does."""

    type: Literal["any"] = "any"
    """Kind of chain: all members are asked at once, and the yes of the first in order holds. It says no only when every
    member does."""


class FirstConfig(ChainTable):
    """A chain for failover: the first member that answers at all decides."""

    type: Literal["first"] = "first"
    """Kind of chain: members are asked one after the other; only one that gives no answer is passed over, and a no is
    an answer."""


class PlugInConfig(AuthorizerTable):
    """An authorizer of somebody else's making; all further keys are its own."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(min_length=1, examples=["package.module:Class"])
    """The name of an installed plug-in (entry point group scep_ra.authorizers), or package.module:Class."""


# Types that are known without asking which plug-ins are installed.
TYPES: Final = frozenset({"registry", "accept-all", "radius", "ldap", "http", "sql", "command", "all", "any", "first"})
# What the guard of a backend keeps for itself; the rest is the backend's.
GUARD_KEYS: Final = frozenset(AuthorizerTable.model_fields)


def _tag(value: Any) -> str:
    """Return which class is to read a table; what is no table at all is for any of them to refuse."""
    found = value.get("type", _DEFAULT_TYPE) if isinstance(value, dict) else getattr(value, "type", _DEFAULT_TYPE)
    return found if isinstance(found, str) and found in TYPES else _PLUG_IN


AuthorizerConfig = Annotated[
    Annotated[RegistryConfig, Tag("registry")]
    | Annotated[AcceptAllConfig, Tag("accept-all")]
    | Annotated[RadiusConfig, Tag("radius")]
    | Annotated[LdapConfig, Tag("ldap")]
    | Annotated[HttpConfig, Tag("http")]
    | Annotated[SqlConfig, Tag("sql")]
    | Annotated[CommandConfig, Tag("command")]
    | Annotated[AllConfig, Tag("all")]
    | Annotated[AnyConfig, Tag("any")]
    | Annotated[FirstConfig, Tag("first")]
    | Annotated[PlugInConfig, Tag("plug-in")],
    Discriminator(_tag),
]
