"""The configuration as frozen values: one class a table of the TOML file, one field a key, its default and its help.

Reading, checking and printing the file is `config_file`'s work. Keys are spelled in the file as they are here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

# Names appear in URLs and file names, so the alphabet is narrow and nothing in it can leave a directory.
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_-]{1,64}$")]


class Table(BaseModel):
    """Base of all tables: unknown keys are refused, values are of the written type, nothing changes afterwards."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class ServerConfig(Table):
    """Where the server listens and how it is reached."""

    bind: str = "127.0.0.1"
    """Address to listen on; "0.0.0.0" serves the network, the default only this machine."""

    port: int = Field(default=8000, ge=0, le=65535)
    """TCP port; 0 takes any free one and prints it."""

    public_url: str = Field(default="", pattern=r"^(https?://[^\s/]+\S*)?$")
    """Base URL under which devices reach this server, written into certificates (CRL); "" = http://BIND:PORT."""

    shutdown_timeout_s: float = Field(default=30.0, gt=0)
    """How long SIGTERM waits for requests in flight."""


class LimitsConfig(Table):
    """What one peer may cost us."""

    max_message_bytes: int = Field(default=65536, ge=16384, le=262144)
    """Largest PKIMessage; real ones are 2 to 16 KiB."""

    header_timeout_s: float = Field(default=15.0, gt=0)
    """From the first byte of a request to the end of its headers."""

    body_timeout_s: float = Field(default=30.0, gt=0)
    """From the end of the headers to the end of the body."""

    idle_timeout_s: float = Field(default=15.0, gt=0)
    """How long a connection may stay open between requests."""

    write_timeout_s: float = Field(default=30.0, gt=0)
    """How long a peer may take to read an answer."""

    max_connections: int = Field(default=2000, ge=1)
    """Open connections in total; more are closed at once."""

    max_connections_per_address: int = Field(default=200, ge=1)
    """Open connections from one address; gateways speak for many devices, so not too few."""

    max_waiting_requests: int = Field(default=256, ge=1)
    """PKIMessages at work at a time; more are answered 503 with Retry-After."""

    crypto_threads: int = Field(default=0, ge=0)
    """Threads for RSA and EC work. 0 = none, the fastest for RSA-2048 and EC; one per processor for larger keys."""


class StorageConfig(Table):
    """Where devices, challenges and certificates are remembered."""

    type: Literal["sqlite"] = "sqlite"
    """Kind of store."""

    path: str = "scep-ra.sqlite"
    """Database file, relative to the data directory."""


class LogConfig(Table):
    """What is written to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least level shown."""

    format: Literal["auto", "json", "text"] = "auto"
    """"auto" = text on a terminal, JSON lines otherwise."""


class CAConfig(Table):
    """A certification authority; created in the data directory at first start."""

    type: Literal["local"] = "local"
    """Kind of CA: "local" keeps its keys in the data directory."""

    tiers: Literal[1, 2] = 2
    """2 = a root and an issuing CA below it; 1 = one self-signed CA."""

    key_type: Literal["rsa-2048", "rsa-3072", "rsa-4096", "ec-p256", "ec-p384"] = "rsa-2048"
    """Key of the issuing CA (and the root)."""

    organization: str = "scep-ra"
    """O of the CA names."""

    root_validity_days: int = Field(default=7300, ge=1)
    """Validity of the root made at first start."""

    validity_days: int = Field(default=3650, ge=1)
    """Validity of the issuing CA made at first start."""

    scep_key_usage: bool = False
    """Give the CA key the usages digitalSignature and keyEncipherment too, for a profile without an RA."""

    crl_validity_h: int = Field(default=168, ge=1)
    """nextUpdate of a CRL after thisUpdate; a new one is made at each revocation and at half of this."""


class RAConfig(Table):
    """A registration authority certificate: signs CertReps and decrypts requests; never issues."""

    ca: Name = "default"
    """The CA that issues it at first start."""

    key_type: Literal["rsa-2048", "rsa-3072", "rsa-4096"] = "rsa-2048"
    """RSA, because clients encrypt their requests to it."""

    validity_days: int = Field(default=1825, ge=1)
    """Validity of the RA certificate."""


class AuthorizerConfig(Table):
    """A PKI-AAA backend: decides which device may have a certificate."""

    type: Literal["registry", "accept-all"] = "registry"
    """Kind of backend: "registry" is the embedded list of devices (`scep-ra device`); "accept-all" is for a lab."""


class AlgorithmsConfig(Table):
    """What a profile speaks on the wire besides AES-CBC with SHA-256, SHA-384 and SHA-512."""

    allow_sha1: bool = False
    """Accept SHA-1 digests (older IOS, scepclient, Apple without GetCACaps)."""

    allow_triple_des: bool = False
    """Accept 3DES-CBC envelopes."""

    insecure_des_and_md5: bool = False
    """Accept single DES and MD5, both broken; each use is logged as a warning. Implies neither of the above."""

    password_envelope: bool = False
    """Accept EC signers by the password-based envelope (RFC 8894 3.1). Challenges are then kept encrypted, too."""


class RenewalConfig(Table):
    """When a certificate of ours may ask for its successor."""

    enabled: bool = True
    """Accept RenewalReq, and PKCSReq signed with our certificate."""

    window_days: int = Field(default=0, ge=0)
    """Accept from this many days before notAfter; 0 = at any time."""

    grace_days: int = Field(default=0, ge=0)
    """Accept until this many days after notAfter."""

    allow_same_key: bool = False
    """Accept the old key again (scepclient renews so)."""


class CompatConfig(Table):
    """Switches for clients that read RFC 8894 in their own way."""

    empty_content: Literal["zero-length", "absent"] = "zero-length"
    """Form of a CertRep without envelope; certmonger reads only the first."""

    ca_certificates_in_reply: bool = False
    """Send the CA chain beside the issued certificate (Cisco VPN clients want it; Juniper and scepclient do not)."""


class ProfileConfig(Table):
    """A service at /scep/NAME: who may enroll there, how, and what the certificate holds."""

    ca: Name = "default"
    """The [ca.NAME] that signs."""

    ra: str = Field(default="default", pattern=r"^([a-z0-9_-]{1,64})?$")
    """The [ra.NAME] that speaks SCEP; "" = the CA itself, GetCACert then returns a single certificate."""

    authorizer: Name = "registry"
    """The [aaa.NAME] that decides."""

    service: str = Field(default="", pattern=r"^[A-Za-z0-9_.-]{0,64}$")
    """The service that AAA must grant (`scep-ra device add --service`); "" = none is asked for."""

    challenge: Literal["one-time", "static", "none"] = "one-time"
    """What opens a first enrollment: a challenge made for the device (`scep-ra challenge new`), one secret for all, or
    none (then only a certificate does)."""

    static_challenge_sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")
    """The shared secret of challenge = "static", hashed by `printf %s SECRET | sha256sum`."""

    device_id: tuple[str, ...] = ("subject.serialNumber", "subject.userId", "san", "subject.commonName")
    """Where the device ID is looked for, strongest first."""

    subject: str = ""
    """Subject of issued certificates, as a template: "serialNumber={device.value},CN={attribute.hostname},O=Example".
    Variables: {device.value}, {device.kind}, {profile}, {user}, {attribute.NAME} of the AAA answer, {csr.CN} for what
    the device claims; {attribute.department?} leaves the attribute out where AAA has none. "" = the subject that the
    device asks for, octet by octet (Cisco IOS needs that), where device ID, AAA or subject_allowed vouch for every
    attribute of it. docs/naming.md has an example for each kind of client."""

    subject_allowed: tuple[str, ...] = ()
    """What devices may claim in their subject though AAA does not say it, * for any text: ["O=Example", "OU=*",
    "CN=*.example.com"]."""

    subject_unchecked: bool = False
    """Believe whatever subject a device claims: each may then take the name of another. For a lab."""

    subject_alt_name: tuple[str, ...] = ()
    """subjectAltName of issued certificates, as KIND:TEMPLATE: ["dns:{attribute.fqdn}", "email:{attribute.mail?}",
    "upn:{user}@example.com", "uri:urn:device:{device.kind}:{device.value}"]; more kinds are ip, directory,
    hardware-module, permanent-identifier. The entry "csr" takes over those names of the request that the device ID or
    AAA vouch for. [] = none."""

    validity_days: int = Field(default=365, ge=1, le=36500)
    """Validity of issued certificates, cut at the end of the CA's."""

    key_usage: tuple[Literal["digital_signature", "non_repudiation", "key_encipherment", "key_agreement"], ...] = (
        "digital_signature",
        "key_encipherment",
    )
    """KeyUsage of issued certificates; key_encipherment is left out for EC keys."""

    extended_key_usage: tuple[Literal["client_auth", "server_auth", "email_protection", "ipsec_ike"], ...] = (
        "client_auth",
    )
    """ExtendedKeyUsage of issued certificates."""

    min_rsa_bits: Literal[2048, 3072, 4096] = 2048
    """Smallest RSA key that is certified."""

    replay_days: int = Field(default=8, ge=1)
    """How long the same request is answered with the same certificate, and how long a pending one is kept."""

    max_clock_skew_s: int = Field(default=0, ge=0)
    """Refuse messages whose signingTime is farther off (badTime); 0 = do not look, device clocks are often wrong."""

    queries: Literal["off", "issued"] = "issued"
    """Who may send GetCert and GetCRL: nobody, or holders of our certificates."""

    algorithms: AlgorithmsConfig = AlgorithmsConfig()
    renewal: RenewalConfig = RenewalConfig()
    compat: CompatConfig = CompatConfig()


class Config(Table):
    """The whole file."""

    server: ServerConfig = ServerConfig()
    limits: LimitsConfig = LimitsConfig()
    storage: StorageConfig = StorageConfig()
    log: LogConfig = LogConfig()
    ca: dict[Name, CAConfig] = {"default": CAConfig()}
    ra: dict[Name, RAConfig] = {"default": RAConfig()}
    aaa: dict[Name, AuthorizerConfig] = {"registry": AuthorizerConfig()}
    profile: dict[Name, ProfileConfig] = {"default": ProfileConfig()}


class Settings(BaseModel):
    """A configuration together with where it came from and where data lives."""

    model_config = ConfigDict(frozen=True)

    config: Config
    config_file: Path | None
    data_dir: Path
