"""Claims about finding, reading, checking and writing the configuration file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scep_ra.config import Config, LimitsConfig, ProfileConfig, ServerConfig, Settings
from scep_ra.config_aaa import TYPES
from scep_ra.config_file import DEFAULTS, load_settings, render_template
from scep_ra.config_warnings import warnings_about
from scep_ra.errors import ConfigurationError

CONFIG_DIR = Path(__file__).parent.parent / "config"
# A table in the template that stands there only to be copied.
EXAMPLE = re.compile(r"^#\[(?P<name>[^\]]+)\]\n.*?(?=^#?\[|\Z)", flags=re.MULTILINE | re.DOTALL)


def load(tmp_path: Path, text: str, **overrides: object) -> Settings:
    """Write a file and load it, without the environment of whoever runs the tests."""
    file = tmp_path / "scep-ra.toml"
    file.write_text(text, "utf-8")
    dotted = {name.replace("__", "."): value for name, value in overrides.items()}
    return load_settings(config=file, data=tmp_path, overrides=dotted, environ={})


def problems(tmp_path: Path, text: str, **overrides: object) -> list[str]:
    """Return the lines of the error that a file causes, without the directory."""
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, text, **overrides)
    return [line.removeprefix(f"{tmp_path}/") for line in str(caught.value).splitlines()]


# --- where settings come from --------------------------------------------------------------------------------------


def test_without_file_and_options_the_defaults_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The data directory is ./var, and no file is needed."""
    monkeypatch.chdir(tmp_path)
    settings = load_settings(environ={})
    assert settings == Settings(config=DEFAULTS, config_file=None, data_dir=tmp_path / "var")


def test_the_file_in_the_data_directory_is_read_when_it_is_there(tmp_path: Path) -> None:
    """DATA/scep-ra.toml needs no --config."""
    (tmp_path / "scep-ra.toml").write_text("[server]\nport = 9000\n")
    settings = load_settings(data=tmp_path, environ={})
    assert (settings.config.server.port, settings.config_file) == (9000, tmp_path / "scep-ra.toml")


def test_the_environment_names_file_and_directory(tmp_path: Path) -> None:
    """SCEP_RA_CONFIG and SCEP_RA_DATA stand in for --config and --data."""
    (tmp_path / "other.toml").write_text("[server]\nport = 9001\n")
    environ = {"SCEP_RA_CONFIG": str(tmp_path / "other.toml"), "SCEP_RA_DATA": str(tmp_path / "data")}
    settings = load_settings(environ=environ)
    assert (settings.config.server.port, settings.data_dir) == (9001, tmp_path / "data")


def test_the_command_line_beats_the_environment_and_the_file(tmp_path: Path) -> None:
    """Options win over SCEP_RA_* and overrides win over keys of the file."""
    (tmp_path / "mine.toml").write_text("[server]\nport = 9002\nbind = '::1'\n")
    settings = load_settings(
        config=tmp_path / "mine.toml",
        data=tmp_path,
        overrides={"server.port": 9003},
        environ={"SCEP_RA_CONFIG": "/nowhere", "SCEP_RA_DATA": "/nowhere"},
    )
    assert settings.config.server == ServerConfig(port=9003, bind="::1")
    assert settings.data_dir == tmp_path


def test_an_empty_variable_counts_as_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Service managers often set a variable to nothing."""
    monkeypatch.chdir(tmp_path)
    settings = load_settings(environ={"SCEP_RA_CONFIG": "", "SCEP_RA_DATA": ""})
    assert settings.data_dir == tmp_path / "var"


def test_arrays_whole_numbers_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    """Strict models still take an array for a tuple and 5 for 5.0; the mark of Windows editors is skipped."""
    text = "\ufeff[limits]\nbody_timeout_s = 5\n[profile.default]\nkey_usage = ['digital_signature']\n"
    config = load(tmp_path, text).config
    assert config.limits == LimitsConfig(body_timeout_s=5.0)
    assert config.profile["default"].key_usage == ("digital_signature",)


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://scep_ra@/scep_ra?host=/run/postgresql",
        "postgresql://scep_ra@db.example:5432/scep_ra?sslmode=verify-full",
        "postgres://[2001:db8::1]/scep_ra?sslmode=verify-ca",
    ],
)
def test_a_postgresql_url_is_taken(tmp_path: Path, dsn: str) -> None:
    """By socket, by name, by address."""
    assert load(tmp_path, f"[storage]\ntype = 'postgresql'\ndsn = '{dsn}'").config.storage.dsn == dsn


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://scep_ra:Tr0ub4dor@db.example/scep_ra",
        "postgresql://scep_ra:Tr0ub4dor/3@db.example/scep_ra",
        "postgresql://scep_ra:3@Tr0ub4dor@db.example/scep_ra",
        "postgresql://scep_ra@db.example/scep_ra?sslmode=require&password=Tr0ub4dor",
        "host=db.example password=Tr0ub4dor",
    ],
)
def test_a_password_in_the_url_is_refused_and_not_repeated(tmp_path: Path, dsn: str) -> None:
    """However it is spelled; the message says where passwords go."""
    (problem,) = problems(tmp_path, f"[storage]\ntype = 'postgresql'\ndsn = '{dsn}'")
    assert problem.endswith(
        "3: key storage.dsn is not postgresql://USER@HOST:PORT/DATABASE (a password goes into password_file)"
    )
    assert "Tr0ub4dor" not in problem


def test_a_database_elsewhere_has_to_prove_who_it_is(tmp_path: Path) -> None:
    """The driver's default takes an answer in the clear from whoever says that he has no TLS."""
    (problem,) = problems(tmp_path, "[storage]\ntype = 'postgresql'\ndsn = 'postgresql://ra@db.example/ra'")
    assert "3: key storage.dsn is open to whoever sits on the way" in problem
    assert "add ?sslmode=verify-full" in problem


# --- what is wrong, and where --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[server]\nprot = 1", "2: key server.prot is unknown; did you mean server.port?"),
        ("[sever]\nport = 1", "1: key sever is unknown; did you mean server?"),
        ("[server]\nxyzzy = 1", "2: key server.xyzzy is unknown"),
        (
            "[profile.vpn.renewal]\n\ngrace_day = 1",
            "3: key profile.vpn.renewal.grace_day is unknown; did you mean profile.vpn.renewal.grace_days?",
        ),
        ("\n[server] # here\nport = 70000", "3: key server.port must be less than or equal to 65535"),
        ("server.port = '80'", "1: key server.port must be a valid integer"),
        ("server = { port = 70000 }", "1: key server.port must be less than or equal to 65535"),
        ("server = 3", "1: key server must be a table"),
        ("profile = 3", "1: key profile must be a table"),
        ("[server]\nbind = 2020-01-01\nport = 2020-01-01", "3: key server.port must be a valid integer"),
        ("[limits]\nbody_timeout_s = inf", "2: key limits.body_timeout_s must be a finite number"),
        ("[ca.default]\ntiers = 3", "2: key ca.default.tiers must be 1 or 2"),
        ('[profile."Big Name"]', "1: key profile.Big Name has a name that is not 1 to 64 of a-z, 0-9, _ and -"),
        (
            "[profile.default]\nkey_usage = [\n 'digital_signature',\n 'bogus',\n]",
            (
                "2: key profile.default.key_usage[1] must be 'digital_signature', 'non_repudiation', "
                "'key_encipherment' or 'key_agreement'"
            ),
        ),
        (
            "[ra.default]\nca = 'defualt'",
            "2: key ra.default.ca names [ca.defualt], which is not there; did you mean ca.default?",
        ),
        ("[profile.p]\nca = 'q'", "2: key profile.p.ca names [ca.q], which is not there"),
        ("[profile.p]\nra = 'q'", "2: key profile.p.ra names [ra.q], which is not there"),
        ("[storage]\ntype = 'postgresql'", '1: key storage.dsn goes with type = "postgresql", and only with it'),
        (
            "[storage]\ndsn = 'postgresql://u@h/db'",
            '2: key storage.dsn goes with type = "postgresql", and only with it',
        ),
        ("[profile.p]\nauthorizer = 'q'", "2: key profile.p.authorizer names [aaa.q], which is not there"),
        (
            "[profile.p]\nra = ''",
            '2: key profile.p.ra is "": set scep_key_usage = true in [ca.default], or name an [ra.NAME]',
        ),
        (
            "[ca.default]\nscep_key_usage = true\nkey_type = 'ec-p256'\n[profile.p]\nra = ''",
            '5: key profile.p.ra is "", but clients encrypt to RSA: choose an rsa key_type in [ca.default]',
        ),
        ("[profile]", "1: key profile is empty: nothing would be served; leave it out or write [profile.default]"),
    ],
)
def test_a_problem_names_file_line_key_and_mend(tmp_path: Path, text: str, expected: str) -> None:
    """Every message leads to the place and says what to do there."""
    assert problems(tmp_path, text) == [f"scep-ra.toml:{expected}"]


@pytest.mark.parametrize(
    ("text", "line"), [("[server]\nport = \nx = 1", 2), ("x = 1\nx = 2\n", 2), ("\n\nx = '''\n", 3)]
)
def test_a_syntax_error_names_its_line(tmp_path: Path, text: str, line: int) -> None:
    """Also where the parser says only "at end of document"."""
    (found,) = problems(tmp_path, text)
    assert found.startswith(f"scep-ra.toml:{line}: is not TOML: ")


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    """Nobody mends a file one error at a time."""
    found = problems(tmp_path, "[server]\nport = -1\nprot = 2\n[log]\nlevel = 'loud'\n")
    assert [line.partition(" ")[0] for line in found] == ["scep-ra.toml:2:", "scep-ra.toml:3:", "scep-ra.toml:5:"]


def test_a_ca_that_is_its_own_ra_is_accepted(tmp_path: Path) -> None:
    """An empty `ra` is fine where the CA key may decrypt and is RSA."""
    config = load(tmp_path, "[ca.default]\nscep_key_usage = true\n[profile.default]\nra = ''\n").config
    assert config.profile["default"].ra == ""


def test_missing_ca_and_empty_ra_make_one_problem(tmp_path: Path) -> None:
    """What cannot be judged without the CA is not complained about."""
    assert len(problems(tmp_path, "[profile.p]\nra = ''\nca = 'q'\n")) == 1


def test_a_device_id_rule_that_does_not_exist_is_named(tmp_path: Path) -> None:
    """The rules are checked by the module that carries them out."""
    (found,) = problems(tmp_path, "[profile.p]\ndevice_id = ['subject.shoeSize']\n")
    assert found.startswith("scep-ra.toml:2: key profile.p.device_id is not usable: ")
    assert "subject.shoeSize" in found


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("subject = 'CN={hostname}'", "subject is not usable: there is no variable {hostname}: use {device}, "),
        ("subject_allowed = ['O=Example', 'XX=1']", "subject_allowed is not usable: 'XX=1': unknown name attribute"),
        ("subject_alt_name = ['csr', 'host:x']", "subject_alt_name is not usable: 'host:x': write \"csr\", or KIND:"),
    ],
)
def test_naming_that_cannot_be_carried_out_is_found_at_start(tmp_path: Path, option: str, expected: str) -> None:
    """And not when the first device enrolls."""
    (found,) = problems(tmp_path, f"[profile.p]\n{option}\n")
    assert found.startswith(f"scep-ra.toml:2: key profile.p.{expected}")


def test_a_wrong_override_is_put_on_the_command_line(tmp_path: Path) -> None:
    """The file is not blamed for an option."""
    expected = "command line: key server.port must be less than or equal to 65535"
    assert problems(tmp_path, "[server]\nport = 1\n", server__port=70000) == [expected]


def test_an_override_does_not_hide_a_broken_table(tmp_path: Path) -> None:
    """A table written as a number is reported, not overwritten."""
    assert problems(tmp_path, "server = 3", server__port=1) == ["scep-ra.toml:1: key server must be a table"]


def test_without_a_file_the_command_line_is_at_fault(tmp_path: Path) -> None:
    """There is no file name to show."""
    with pytest.raises(ConfigurationError, match=r"^command line: key server\.port must be"):
        load_settings(data=tmp_path, overrides={"server.port": -1}, environ={})


def test_a_missing_file_and_a_directory_are_named(tmp_path: Path) -> None:
    """The system's reason is passed on."""
    for file in (tmp_path / "absent.toml", tmp_path):
        with pytest.raises(ConfigurationError, match=f"^{re.escape(str(file))}: cannot be read: "):
            load_settings(config=file, environ={})


def test_a_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    """TOML is UTF-8."""
    (tmp_path / "latin.toml").write_bytes(b"# caf\xe9\n")
    with pytest.raises(ConfigurationError, match=r"is not UTF-8 \(octet 5\)"):
        load_settings(config=tmp_path / "latin.toml", environ={})


# --- warnings ------------------------------------------------------------------------------------------------------


def test_the_defaults_cause_no_warning() -> None:
    """What we recommend needs no excuse."""
    assert warnings_about(DEFAULTS) == []


def test_questions_in_the_clear_are_warned_about(tmp_path: Path) -> None:
    """Named after where they go."""
    text = "[aaa.registry]\n[aaa.corp]\ntype = 'http'\nurl = 'http://aaa.example/x'\n"
    assert not warnings_about(load(tmp_path, text).config)
    (warning,) = warnings_about(load(tmp_path, f"{text}insecure_plaintext = true\n").config)
    assert warning.startswith("aaa.corp.insecure_plaintext is on")


@pytest.mark.parametrize(
    ("table", "warning"),
    [
        (
            "type = 'ldap'\nurl = 'ldap://dir.example'\nbase = 'dc=x'\ninsecure_plaintext = true",
            ".insecure_plaintext is on",
        ),
        (
            "type = 'radius'\nservers = ['192.0.2.1']\nsecret_file = 's'\nrequire_message_authenticator = 'no'",
            '.require_message_authenticator is "no": who is on the path',
        ),
    ],
)
def test_an_answer_that_anybody_on_the_way_can_forge_is_warned_about(tmp_path: Path, table: str, warning: str) -> None:
    """Whatever the backend."""
    (told,) = warnings_about(load(tmp_path, f"[aaa.registry]\ntype = 'registry'\n[aaa.corp]\n{table}").config)
    assert told.startswith(f"aaa.corp{warning}")


@pytest.mark.parametrize("option", ["allow_sha1", "allow_triple_des", "insecure_des_and_md5"])
def test_each_weak_algorithm_is_warned_about(tmp_path: Path, option: str) -> None:
    """The warning names profile and option."""
    (warning,) = warnings_about(load(tmp_path, f"[profile.old.algorithms]\n{option} = true\n").config)
    assert warning.startswith(f"profile.old.algorithms.{option} is on: ")


def test_believing_devices_their_names_is_warned_about(tmp_path: Path) -> None:
    """One device could then ask for the name of another."""
    (warning,) = warnings_about(load(tmp_path, "[profile.old]\nsubject_unchecked = true\n").config)
    assert warning.startswith("profile.old.subject_unchecked is on: devices choose their own names")


def test_serving_the_network_without_a_public_url_is_warned_about() -> None:
    """Certificates would point to http://0.0.0.0."""
    (warning,) = warnings_about(Config(server=ServerConfig(bind="0.0.0.0")))
    assert warning.startswith("server.public_url is empty")
    assert not warnings_about(Config(server=ServerConfig(bind="0.0.0.0", public_url="http://ra.example")))


# --- trust ---------------------------------------------------------------------------------------------------------


ACME = '[trust.acme]\ncertificates = ["acme.pem"]\n'
BRANCH = '[trust.branch]\ntype = "ra"\ncertificates = ["branch.pem"]\n'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[trust.acme]\n", "1: key trust.acme.certificates is empty: name the PEM files of whom to trust"),
        (
            ACME + 'issued_by = ["ca.pem"]\n',
            '3: key trust.acme.issued_by does not go with type = "manufacturer"',
        ),
        (BRANCH + "allow_sha1 = true\n", '4: key trust.branch.allow_sha1 does not go with type = "ra"'),
        (
            ACME + '[profile.v]\nmanufacturers = ["acne"]\n',
            "4: key profile.v.manufacturers names [trust.acne], which is not there; did you mean trust.acme?",
        ),
        (
            ACME + '[profile.vpn]\ntrusted_ras = ["acme"]\n',
            '4: key profile.vpn.trusted_ras names [trust.acme], which is not of type "ra"',
        ),
        (
            ACME + 'denied = ["AB:CD"]\n',
            "3: key trust.acme.denied[0] must match pattern '^[0-9a-f]{64}$'",
        ),
    ],
)
def test_trust_that_does_not_hold_together_is_told(tmp_path: Path, text: str, problem: str) -> None:
    """With line and mend, before any file is read."""
    assert problems(tmp_path, text) == [f"scep-ra.toml:{problem}"]


def test_profiles_name_whom_they_trust(tmp_path: Path) -> None:
    """Manufacturers and RAs apart; an RA may be known by its CA alone."""
    profile = '[profile.vpn]\nmanufacturers = ["acme"]\ntrusted_ras = ["branch", "cmc"]\n'
    config = load(tmp_path, ACME + BRANCH + '[trust.cmc]\ntype = "ra"\nissued_by = ["ca.pem"]\n' + profile).config
    assert config.profile["vpn"].manufacturers == ("acme",)
    assert not warnings_about(config)


def test_sha1_in_the_chains_of_a_manufacturer_is_warned_about(tmp_path: Path) -> None:
    """By the name of the table."""
    (warning,) = warnings_about(load(tmp_path, ACME + "allow_sha1 = true\n").config)
    assert warning.startswith("trust.acme.allow_sha1 is on: ")


# --- authorizers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "[aaa.corp]\ntype = 'radus'",
            '2: key aaa.corp.type is not usable: there is no authorizer of type "radus"; did you mean "radius"?',
        ),
        ("[aaa.corp]\ntype = 3", "2: key aaa.corp.type must be a valid string"),
        ("[aaa]\ncorp = 3", "2: key aaa.corp must be a table"),
        (
            "[aaa.corp]\ntype = 'radius'",
            '1: key aaa.corp.servers is missing; for example servers = ["127.0.0.1:1812"]',
        ),
        (
            "[aaa.corp]\ntype = 'radius'\nservers = ['h:1']\nretransmits = 3",
            "4: key aaa.corp.retransmits is unknown; did you mean aaa.corp.retransmit_s?",
        ),
        (
            "[aaa.corp]\ntype = 'radius'\nservers = ['h:1', 2]",
            "3: key aaa.corp.servers[1] must be a valid string",
        ),
        ("[aaa.corp]\ncache_s = 61", "2: key aaa.corp.cache_s must be less than or equal to 60"),
        (
            "[aaa.both]\ntype = 'all'\nmembers = ['corq']\n[aaa.corp]",
            "3: key aaa.both.members names [aaa.corq], which is not there; did you mean aaa.corp?",
        ),
        (
            "[aaa.both]\ntype = 'any'\nmembers = ['both']",
            "3: key aaa.both.members lead back to the chain itself: both asks both",
        ),
    ],
)
def test_authorizers_that_cannot_be_used_are_told(tmp_path: Path, text: str, problem: str) -> None:
    """By the options of their type, with line and mend."""
    assert problems(tmp_path, f"{text}\n[aaa.registry]\n") == [f"scep-ra.toml:{problem}"]


def test_every_chain_of_a_ring_is_told_the_way_round(tmp_path: Path) -> None:
    """And one that merely leads to the ring is not to blame."""
    text = "".join(
        f"[aaa.{name}]\ntype = 'all'\nmembers = {members}\n"
        for name, members in {"a": ["b"], "b": ["registry", "c", "c"], "c": ["b"]}.items()
    )
    assert problems(tmp_path, f"{text}[aaa.registry]\n") == [
        "scep-ra.toml:6: key aaa.b.members lead back to the chain itself: b asks c asks b",
        "scep-ra.toml:9: key aaa.c.members lead back to the chain itself: c asks b asks c",
    ]


def test_chains_may_share_members(tmp_path: Path) -> None:
    """And hold one another, as long as it ends somewhere."""
    text = "[aaa.a]\ntype = 'all'\nmembers = ['b', 'registry']\n[aaa.b]\ntype = 'any'\nmembers = ['registry']\n"
    assert load(tmp_path, f"{text}[aaa.registry]\n").config.aaa["a"].type == "all"


def test_the_keys_of_a_plug_in_are_its_own(tmp_path: Path) -> None:
    """Those that every authorizer has are checked all the same."""
    text = "[aaa.registry]\n[aaa.own]\ntype = 'own.module:Class'\nlevel = 3\nnested = {a = 1}\n"
    (table,) = (table for name, table in load(tmp_path, text).config.aaa.items() if name == "own")
    assert table.model_extra == {"level": 3, "nested": {"a": 1}}
    assert problems(tmp_path, f"{text}timeout_s = 'x'\n") == [
        "scep-ra.toml:6: key aaa.own.timeout_s must be a valid number"
    ]


# --- who is asked about challenges -----------------------------------------------------------------------------------


JUDGE = "[aaa.registry]\n[aaa.judge]\ntype = 'http'\nurl = 'https://x'\nkind = 'SCEPCHALLENGE'\n"


def test_a_profile_may_have_a_web_service_judge_challenges(tmp_path: Path) -> None:
    """Another authorizer decides about the device."""
    text = "[profile.p]\nchallenge = 'webhook'\nchallenge_authorizer = 'judge'\n"
    assert load(tmp_path, JUDGE + text).config.profile["p"].challenge_authorizer == "judge"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[profile.p]\nchallenge = 'webhook'", "6: key profile.p.challenge_authorizer goes with challenge = "),
        ("[profile.p]\nchallenge_authorizer = 'judge'", "7: key profile.p.challenge_authorizer goes with challenge = "),
        (
            "[profile.p]\nchallenge = 'webhook'\nchallenge_authorizer = 'jugde'",
            "8: key profile.p.challenge_authorizer names [aaa.jugde], which is not there; did you mean aaa.judge?",
        ),
        (
            "[profile.p]\nchallenge = 'webhook'\nchallenge_authorizer = 'registry'",
            '8: key profile.p.challenge_authorizer names [aaa.registry], which is not of kind = "SCEPCHALLENGE"',
        ),
        (
            "[profile.p]\nauthorizer = 'judge'",
            "7: key profile.p.authorizer names [aaa.judge], which knows challenges only",
        ),
        (
            "[aaa.both]\ntype = 'all'\nmembers = ['registry', 'judge']",
            "8: key aaa.both.members name [aaa.judge], which knows challenges only",
        ),
    ],
)
def test_who_judges_challenges_judges_nothing_else_and_nobody_else_does(
    tmp_path: Path, text: str, problem: str
) -> None:
    """The registry would say yes to every challenge of a device that it knows."""
    (line,) = problems(tmp_path, f"{JUDGE}{text}\n")
    assert line.startswith(f"scep-ra.toml:{problem}")


# --- clients of the API ----------------------------------------------------------------------------------------------


def test_clients_of_the_api_are_told_apart_by_their_tokens(tmp_path: Path) -> None:
    """Each may do what it has to; the profile is there."""
    text = "".join(f"[api.{name}]\ntoken_sha256 = '{name * 64}'\nprofile = 'default'\n" for name in "ab")
    assert load(tmp_path, text).config.api["a"].scopes == ("authorize",)
    assert problems(tmp_path, text.replace("b" * 64, "a" * 64).replace("'default'", "''")) == [
        "scep-ra.toml:5: key api.b.token_sha256 is that of [api.a], too: make a token for each client"
    ]
    assert problems(tmp_path, text.replace("profile = 'default'\n[api.b]", "profile = 'defualt'\n[api.b]")) == [
        "scep-ra.toml:3: key api.a.profile names [profile.defualt], which is not there; did you mean profile.default?"
    ]


# --- the template --------------------------------------------------------------------------------------------------


def test_the_template_as_it_is_loads_as_the_defaults(tmp_path: Path) -> None:
    """A comment changes nothing."""
    assert load(tmp_path, render_template()).config == DEFAULTS


def test_the_template_with_every_option_uncommented_loads_as_the_defaults(tmp_path: Path) -> None:
    """What stands behind the # is the default, in a form that loads."""
    text = EXAMPLE.sub("", render_template())
    uncommented, count = re.subn(r"^#(?=\S)", "", text, flags=re.MULTILINE)
    assert count == len(re.findall(r"^\w+ = ", uncommented, flags=re.MULTILINE))
    assert load(tmp_path, uncommented).config == DEFAULTS


@pytest.mark.parametrize("type_name", [*sorted(TYPES - {"registry"}), "plug-in"])
def test_every_kind_of_authorizer_has_an_example_that_loads_once_uncommented(tmp_path: Path, type_name: str) -> None:
    """With all of its options."""
    (example,) = (each[0] for each in EXAMPLE.finditer(render_template()) if each["name"] == f"aaa.{type_name}")
    text = render_template().replace(example, re.sub(r"^#(?=\S)", "", example, flags=re.MULTILINE))
    authorizer = load(tmp_path, text).config.aaa[type_name]
    assert authorizer.type == ("package.module:Class" if type_name == "plug-in" else type_name)


def test_a_changed_option_is_written_without_the_comment_sign(tmp_path: Path) -> None:
    """The template of any configuration loads as that configuration."""
    config = Config(
        server=ServerConfig(port=9000, public_url='http://ra.example/"\\é'),
        profile={"vpn": ProfileConfig(key_usage=(), validity_days=1)},
    )
    text = render_template(config)
    assert re.findall(r"^\w+ = .*", text, flags=re.MULTILINE) == [
        "port = 9000",
        r'public_url = "http://ra.example/\"\\é"',
        "validity_days = 1",
        "key_usage = []",
    ]
    assert load(tmp_path, text).config == config


def test_the_template_tells_choices_and_ranges() -> None:
    """Nobody has to try values."""
    text = render_template()
    assert '(one of "debug", "info", "warning", "error")' in text
    assert "(0 to 65535)" in text
    assert '(any of "client_auth", "server_auth", "email_protection", "ipsec_ike")' in text


# --- the examples --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", sorted(CONFIG_DIR.iterdir()), ids=lambda file: file.name)
def test_every_example_loads(file: Path, tmp_path: Path) -> None:
    """An example that does not load is worse than none."""
    assert load_settings(config=file, data=tmp_path, environ={}).config_file == file


def test_the_reference_example_is_the_template() -> None:
    """config/scep-ra.toml is written by render_template and by nobody else."""
    assert (CONFIG_DIR / "scep-ra.toml").read_text("utf-8") == render_template()


def test_the_lab_says_aloud_how_open_it_is() -> None:
    """A static challenge and an authorizer that accepts all are named before anything is served."""
    settings = load_settings(config=CONFIG_DIR / "lab.toml", environ={})
    warnings = "\n".join(warnings_about(settings.config))
    assert "EVERY DEVICE IS AUTHORIZED" in warnings
    assert 'profile.default.challenge is "static"' in warnings
    assert "profile.default.subject_unchecked is on" in warnings
    assert settings.config.server.bind == "127.0.0.1"


@pytest.mark.parametrize(
    "text", ['challenge = "static"', f'static_challenge_sha256 = "{"0" * 64}"'], ids=["no secret", "secret without use"]
)
def test_a_static_challenge_and_its_secret_go_together(tmp_path: Path, text: str) -> None:
    """One without the other is a mistake that would open or close the profile."""
    with pytest.raises(ConfigurationError, match="static_challenge_sha256 goes with"):
        load(tmp_path, f"[profile.default]\n{text}\n")


def test_a_text_of_the_wrong_form_is_told_with_the_help_of_its_option(tmp_path: Path) -> None:
    """And not repeated: here somebody has written the secret itself."""
    text = '[profile.default]\nchallenge = "static"\nstatic_challenge_sha256 = "lab-secret"\n'
    (problem,) = problems(tmp_path, text)
    assert problem.startswith("scep-ra.toml:3: key profile.default.static_challenge_sha256 must match pattern")
    assert problem.endswith(': The shared secret of challenge = "static", hashed by `printf %s SECRET | sha256sum`.')
    assert "lab-secret" not in problem


@pytest.mark.parametrize("options", ['challenge = "anonymous"', "insecure_anonymous = true"])
def test_a_profile_without_proof_has_to_be_meant(tmp_path: Path, options: str) -> None:
    """One of the two alone does not start; both together do, with a warning."""
    (problem,) = problems(tmp_path, f"[profile.default]\n{options}\n")
    assert "profile.default.insecure_anonymous goes with challenge = " in problem
    both = '[profile.default]\nchallenge = "anonymous"\ninsecure_anonymous = true\n'
    assert any("whoever knows the ID" in warning for warning in warnings_about(load(tmp_path, both).config))
