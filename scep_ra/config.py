"""The configuration as frozen values: one class a table of the TOML file, one field a key, its default and its help.

Reading, checking and printing the file is `config_file`'s work. Keys are spelled in the file as they are here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from scep_ra.config_aaa import AuthorizerConfig, RegistryConfig
from scep_ra.config_api import ApiConfig
from scep_ra.config_base import Name, Table
from scep_ra.config_disconnect import AaaSyncConfig, WebhookConfig
from scep_ra.config_headend import HeadendConfig, RadiusServerConfig

# Far more than processors: a number that is mistyped must not take the machine down.
MAX_WORKERS: Final = 64


class ServerConfig(Table):
    """Where the server listens and how it is reached."""

    bind: str = "127.0.0.1"
    """Address to listen on; "0.0.0.0" serves the network, the default only this machine."""

    port: int = Field(default=8000, ge=0, le=65535)
    """TCP port; 0 takes any free one and prints it."""

    public_url: str = Field(default="", pattern=r"^(https?://[^\s/]+\S*)?$")
    """Base URL under which devices reach this server, written into certificates (CRL); "" = http://BIND:PORT."""

    workers: int = Field(default=1, ge=1, le=MAX_WORKERS)
    """Processes that serve the port over the same store; one per processor is the most that helps. [limits] hold for
    each of them, and /healthz and /readyz speak for the one that answers."""

    shutdown_timeout_s: float = Field(default=30.0, gt=0)
    """How long SIGTERM waits for requests in flight."""

    node: str = Field(default="", pattern=r"^[!-~]{0,64}$")
    """Name of this node's chain in the audit log, not that of any other node on the same store; "" = the host name."""


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

    max_requests_per_address_per_s: float = Field(default=0.0, ge=0)
    """Requests of one address (IPv6: /64) a second in the long run, ten times as many (at least 10) at once; more are
    answered 503 with Retry-After, or "try later" by OCSP, which is counted apart. 0 = no limit, because a gateway
    speaks for many devices."""

    crypto_threads: int = Field(default=0, ge=0)
    """Threads for RSA and EC work. 0 = none, the fastest for RSA-2048 and EC; one per processor for larger keys."""


class StorageConfig(Table):
    """Where devices, challenges and certificates are remembered."""

    type: Literal["sqlite", "postgresql"] = "sqlite"
    """Kind of store: "sqlite" is a file for one node and is upgraded at its start; "postgresql" is a server for several
    nodes, where `scep-ra db upgrade` says when the schema of a new version comes."""

    path: str = "scep-ra.sqlite"
    """SQLite: database file, relative to the data directory."""

    dsn: str = ""
    """PostgreSQL: postgresql://USER@HOST:PORT/DATABASE, for a socket postgresql://USER@/DATABASE?host=/run/postgresql,
    and with ?sslmode=verify-full for TLS; without the password."""

    password_file: str = ""
    """PostgreSQL: file of mode 0600 with the password alone, relative to the data directory. "" = PGPASSWORD or
    ~/.pgpass, as for psql."""

    pool_size: int = Field(default=8, ge=1, le=100)
    """PostgreSQL: connections that one node may open."""

    timeout_s: float = Field(default=10.0, gt=0)
    """PostgreSQL: how long to wait for a connection, and for a statement."""

    keep_refusals_days: int = Field(default=30, ge=1)
    """How long `scep-ra request` remembers requests that were refused."""

    keep_refusals: int = Field(default=100_000, ge=0)
    """How many refused requests are remembered, the newest; a few KiB each."""


class LogConfig(Table):
    """What is written to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least level shown."""

    format: Literal["auto", "json", "text"] = "auto"
    """"auto" = text on a terminal, JSON lines otherwise."""

    security: str = ""
    """File for security events (refusals, lock-outs, audit heads) as JSON lines of mode 0600, relative to the data
    directory; it may be renamed at any time. "" = with the other logs, marked stream=security."""


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

    ocsp: bool = True
    """Answer OCSP for this CA at /ocsp/NAME, and say so in its certificates."""

    # Half of the time for which the CA certifies the key that answers is 84 hours.
    ocsp_validity_h: float = Field(default=1.0, ge=0.01, le=72)
    """nextUpdate of an OCSP answer after thisUpdate: so long a client may believe the one it has and not ask again.
    Who asks hears of a revocation at once."""


class RAConfig(Table):
    """A registration authority certificate: signs CertReps and decrypts requests; never issues."""

    ca: Name = "default"
    """The CA that issues it at first start."""

    key_type: Literal["rsa-2048", "rsa-3072", "rsa-4096"] = "rsa-2048"
    """RSA, because clients encrypt their requests to it."""

    validity_days: int = Field(default=1825, ge=1)
    """Validity of the RA certificate."""


class TrustConfig(Table):
    """Who besides our CAs vouches for devices: a manufacturer by its certificates (IDevID, Cisco: SUDI), or RAs."""

    type: Literal["manufacturer", "ra"] = "manufacturer"
    """"manufacturer" = CAs whose certificates say which device it is; "ra" = RAs that ask on behalf of devices."""

    certificates: tuple[str, ...] = ()
    """PEM files, relative to this file: the CAs of a manufacturer to trust, or the very certificates of RAs."""

    intermediates: tuple[str, ...] = ()
    """PEM files of CAs between those and the devices, which mostly send nothing but their own certificate."""

    issued_by: tuple[str, ...] = ()
    """RA: PEM files of CAs of which every certificate with the purpose id-kp-cmcRA (RFC 6402) is an RA's."""

    check_validity: Literal["strict", "ignore_not_after"] = "strict"
    """Manufacturer: "ignore_not_after" takes expired certificates, for hardware that outlives them (SUDIs of 2029)."""

    allow_sha1: bool = False
    """Manufacturer: accept SHA-1 signatures on certificates (legacy SUDIs)."""

    organization: str = ""
    """Manufacturer: the O that the subject of a device certificate must have; "" = any."""

    products: tuple[str, ...] = ()
    """Manufacturer: the products (PID) that are accepted, * and ? stand for any characters; [] = all."""

    denied: tuple[Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")], ...] = ()
    """SHA-256 fingerprints (lower-case hex) of certificates not to be trusted, of devices or of CAs."""


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

    revoke_old_after_h: int = Field(default=-1, ge=-1)
    """Revoke the old certificate this many hours after its successor was issued; -1 = let it expire."""


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

    challenge: Literal["one-time", "static", "webhook", "none", "anonymous"] = "one-time"
    """What opens a first enrollment: a challenge made for the device (`scep-ra challenge new`), one secret for all, a
    challenge that a web service made and is asked about, none (then only a certificate does), or nothing at all
    ("anonymous", which needs insecure_anonymous)."""

    challenge_authorizer: str = Field(default="", pattern=r"^([a-z0-9_-]{1,64})?$")
    """The [aaa.NAME] of type "http" and kind "SCEPCHALLENGE" that is asked where challenge = "webhook"."""

    insecure_anonymous: bool = False
    """Mean it when challenge = "anonymous": whoever knows the ID of a device gets its certificate."""

    static_challenge_sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")
    """The shared secret of challenge = "static", hashed by `printf %s SECRET | sha256sum`."""

    lockout_attempts: int = Field(default=10, ge=0)
    """Wrong challenges from one address (IPv6: /64), or for one device, that lock it out: a static challenge is then
    refused unseen, and refusals are not put on record. A device still gets in from an address that made no mistake.
    0 = never. Each worker process counts for itself, up to its share of the number."""

    lockout_window_s: float = Field(default=300.0, gt=0)
    """Within which they are counted, and for how long the lock holds."""

    approval: Literal["off", "first", "always"] = "off"
    """Which requests wait until an operator has said yes (`scep-ra request approve`): none, those for a first
    certificate, or all. A single device is marked by `scep-ra device add --approval`."""

    max_active_certificates: int = Field(default=2, ge=0)
    """Certificates of one device that may be good at the same time, superseded ones not counted; 0 = no limit."""

    max_waiting_per_device: int = Field(default=4, ge=0)
    """Requests of one device that may wait for a decision, or for the device to come back, at a time; 0 = no limit."""

    second_key: Literal["allow", "refuse", "hold", "replace"] = "allow"
    """What to do when a device that holds a good certificate asks for a first one under another key, which is a reset
    device or a clone: issue, refuse, let an operator decide, or issue and revoke the others."""

    manufacturers: tuple[Name, ...] = ()
    """The [trust.NAME] of manufacturers whose device certificates (IDevID, SUDI) enroll without a challenge."""

    trusted_ras: tuple[Name, ...] = ()
    """The [trust.NAME] of RAs that may ask on behalf of devices."""

    idevid_require_new_key: bool = False
    """Do not certify the key of the manufacturer's certificate again: devices have to make a new one."""

    device_id: tuple[str, ...] = ("subject.serialNumber", "subject.userId", "san", "subject.commonName")
    """Where the device ID is looked for, strongest first: "san", or a subject attribute, with its kind if need be
    ("subject.commonName:imei") and a pattern that cuts it out of a longer text ("subject.commonName {any}:{id}")."""

    subject: str = ""
    """Subject of issued certificates, as a template: "serialNumber={device.value},CN={attribute.hostname},O=Example".
    Variables: {device.value}, {device.kind}, {profile}, {user}, {attribute.NAME} of the AAA answer, {csr.CN} for what
    the device claims; {attribute.department?} leaves the attribute out where AAA has none. "" = the subject that the
    device asks for, octet by octet (Cisco IOS needs that), where device ID, AAA or subject_allowed vouch for every
    attribute of it. docs/naming.md has an example for each kind of client."""

    subject_allowed: tuple[str, ...] = ("C=*", "ST=*", "L=*", "O=*")
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

    keys: tuple[Literal["rsa-2048", "rsa-3072", "rsa-4096", "ec-p256", "ec-p384", "ec-p521"], ...] = (
        "rsa-2048",
        "rsa-3072",
        "rsa-4096",
        "ec-p256",
        "ec-p384",
        "ec-p521",
    )
    """Kinds of keys that are certified; weak keys of any kind never are."""

    replay_days: int = Field(default=8, ge=1)
    """How long the same request gets the same answer, and certificate if there is one, and how long a pending one is
    kept. After that the same request is judged as a new one; `scep-ra request forget` shortens it for one request."""

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
    aaa: dict[Name, AuthorizerConfig] = {"registry": RegistryConfig()}
    trust: dict[Name, TrustConfig] = {}
    radius: RadiusServerConfig = RadiusServerConfig()
    headend: dict[Name, HeadendConfig] = {}
    webhook: dict[Name, WebhookConfig] = {}
    api: dict[Name, ApiConfig] = {}
    aaa_sync: AaaSyncConfig = AaaSyncConfig()
    profile: dict[Name, ProfileConfig] = {"default": ProfileConfig()}


class Settings(BaseModel):
    """A configuration together with where it came from and where data lives."""

    model_config = ConfigDict(frozen=True)

    config: Config
    config_file: Path | None
    data_dir: Path
