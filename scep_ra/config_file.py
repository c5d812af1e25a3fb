"""The configuration file: find it, read it, check it as a whole, and write the commented template.

Options, their defaults and their help are in `config`; this module knows them only through its models, so it cannot
go stale. What an option means to a running server belongs to `app`.
"""

from __future__ import annotations

import json
import os
import re
import textwrap
import tomllib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from scep_ra.aaa.registry import check_type
from scep_ra.config import Config, ProfileConfig, Settings, StorageConfig, TrustConfig
from scep_ra.config_aaa import TYPES, AuthorizerConfig, ChainTable, HttpConfig, PlugInConfig
from scep_ra.config_base import Table
from scep_ra.config_headend import check_headends
from scep_ra.dsn import check_protected
from scep_ra.enrollment.naming import NamingRules
from scep_ra.errors import ConfigurationError
from scep_ra.identity.rules import check_rules

CONFIG_FILE_NAME: Final = "scep-ra.toml"
DEFAULT_DATA_DIR: Final = Path("var")
NO_OVERRIDES: Final[Mapping[str, object]] = MappingProxyType({})
DEFAULTS: Final = Config()

Key = tuple[str | int, ...]  # ("server", "port"); a number is an index into an array
Problem = tuple[Key, str]  # the text completes the sentence that begins with the key

_HEADER: Final = re.compile(r"\s*\[{1,2}(?P<key>[^\[\]]+)\]{1,2}\s*(#.*)?")
_ASSIGNMENT: Final = re.compile(r"\s*(?P<key>[^=#\[\]{]+)=")
# Any colon before the @, any parameter of this name, would be a password, which messages and logs must not repeat.
_DSN: Final = re.compile(
    r"postgres(ql)?://([^\s:/?#@]+@)?([^\s:/?#@\[\]]*|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?/[^\s/?#@]+"
    r"(\?(?!([^#]*&)?password=)[^\s#]*)?"
)
_SYNTAX_ERROR_LINE: Final = re.compile(r"\(at line (\d+)")


# --- loading -------------------------------------------------------------------------------------------------------


def load_settings(
    *,
    config: Path | None = None,
    data: Path | None = None,
    overrides: Mapping[str, object] = NO_OVERRIDES,
    environ: Mapping[str, str] = os.environ,
) -> Settings:
    """Return the settings in force: command line, then SCEP_RA_CONFIG and SCEP_RA_DATA, then the file, then defaults.

    `overrides` maps dotted keys ("server.port") to values. Without `config` the file is scep-ra.toml in the data
    directory, if there is one. Raise ConfigurationError with every problem on a line of its own.
    """
    data_dir = (data or _path_from(environ, "SCEP_RA_DATA") or DEFAULT_DATA_DIR).absolute()
    file = config or _path_from(environ, "SCEP_RA_CONFIG")
    if file is None and (data_dir / CONFIG_FILE_NAME).exists():
        file = data_dir / CONFIG_FILE_NAME
    text = "" if file is None else _read(file)
    document = _parse(text, file)
    _apply(overrides, document)
    try:
        # By way of JSON, because strict models take a tuple from an array only there.
        loaded = Config.model_validate_json(json.dumps(document, default=str))
        problems = list(_check(loaded))
    except ValidationError as error:
        problems = [_describe(details) for details in error.errors()]
    if problems:
        lines = _line_numbers(text)
        raise ConfigurationError("\n".join(_locate(problem, file, lines, overrides) for problem in problems))
    return Settings(config=loaded, config_file=file, data_dir=data_dir)


def _path_from(environ: Mapping[str, str], name: str) -> Path | None:
    return Path(environ[name]) if environ.get(name) else None


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8-sig")  # editors on Windows put a byte order mark in front
    except OSError as error:
        raise ConfigurationError(f"{file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{file}: is not UTF-8 (octet {error.start}); save it as UTF-8") from error


def _parse(text: str, file: Path | None) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = _SYNTAX_ERROR_LINE.search(str(error))  # otherwise the text says "at end of document"
        line = found[1] if found else len(text.splitlines())
        raise ConfigurationError(f"{file}:{line}: is not TOML: {error}") from error


def _apply(overrides: Mapping[str, object], document: dict[str, Any]) -> None:
    for dotted, value in overrides.items():
        table, _, leaf = dotted.rpartition(".")
        place = document.setdefault(table, {})
        if isinstance(place, dict):  # anything else is reported by the model
            place[leaf] = value


# --- saying where --------------------------------------------------------------------------------------------------


def _describe(details: ErrorDetails) -> Problem:
    """Put an error of pydantic into our words."""
    key, known = _read_location(details["loc"])
    match details["type"]:
        case "extra_forbidden":
            return key, "is unknown" + _did_you_mean(str(key[-1]), known, key[:-1])
        case "missing":
            return key, f"is missing; for example {key[-1]} = {_toml(_example_of(known[str(key[-1])]))}"
        case "model_type" | "dict_type":
            return key, "must be a table"
        case "string_pattern_mismatch" if key[-1] == "[key]":
            return key[:-1], "has a name that is not 1 to 64 of a-z, 0-9, _ and -"
        case "string_pattern_mismatch" if str(key[-1]) in known:
            # Not everybody reads patterns, but the help says what is meant.
            return key, f"must match pattern '{details['ctx']['pattern']}': {known[str(key[-1])].description}"
        case _:
            return key, re.sub(r"^(Input|String) should", "must", details["msg"])


def _read_location(location: Key) -> tuple[Key, Mapping[str, FieldInfo]]:
    """Return the key that pydantic means and the fields of its table; the class that `type` chose is in no file."""
    key: Key = ()
    fields: Mapping[str, FieldInfo] = Config.model_fields
    annotation: Any = Config
    for part in location:
        if part in (choices := _choices(annotation)):
            annotation = choices[str(part)]
            continue
        key = (*key, part)
        if hasattr(annotation, "model_fields"):
            fields = annotation.model_fields
            annotation = fields[str(part)].annotation if part in fields else None
        else:
            annotation = get_args(annotation)[1] if get_origin(annotation) is dict else None
    return key, fields


def _choices(annotation: Any) -> Mapping[str, type[Table]]:
    """Return the classes of a table that is read by its `type`, by pydantic's tag."""
    if get_origin(annotation) is not Annotated:
        return {}
    union = [get_args(member) for member in get_args(get_args(annotation)[0])]
    return {tag.tag: table for table, tag in union}


def _locate(problem: Problem, file: Path | None, lines: Mapping[Key, int], overrides: Mapping[str, object]) -> str:
    key, text = problem
    line = next((f":{lines[prefix]}" for prefix in _prefixes(key) if prefix in lines), "")
    where = "command line" if file is None or _dotted(key) in overrides else f"{file}{line}"
    return f"{where}: key {_dotted(key)} {text}"


def _dotted(key: Key) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in key).removeprefix(".")


def _did_you_mean(name: str, known: Iterable[str], table: Key = ()) -> str:
    nearest = get_close_matches(name, list(known), n=1)
    return "".join(f"; did you mean {_dotted((*table, match))}?" for match in nearest)


def _prefixes(key: Key) -> Iterator[Key]:
    return (key[:length] for length in range(len(key), 0, -1))


def _line_numbers(text: str) -> dict[Key, int]:
    """Find the line of each table and key; tomllib keeps none. A key in an inline table has the line of that table."""
    lines: dict[Key, int] = {}
    table: Key = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.fullmatch(line):
            table = _path(header["key"])
            lines[table] = number
        elif assignment := _ASSIGNMENT.match(line):
            key = (*table, *_path(assignment["key"]))
            for prefix in _prefixes(key):
                lines.setdefault(prefix, number)
    return lines


def _path(key: str) -> Key:
    return tuple(part.strip(" \t\"'") for part in key.split("."))


# --- what the models cannot see ------------------------------------------------------------------------------------


def _check(config: Config) -> Iterator[Problem]:
    for name, ra in config.ra.items():
        yield from _reference(("ra", name, "ca"), ra.ca, "ca", config.ca)
    for name, trust in config.trust.items():
        yield from _check_trust(("trust", name), trust)
    for name, authorizer in config.aaa.items():
        yield from _check_authorizer(("aaa", name), authorizer, config)
    yield from check_headends(config.radius, config.headend, config.profile)
    for name, profile in config.profile.items():
        yield from _check_profile(("profile", name), profile, config)
    yield from _check_api(config)
    if not config.profile:
        yield ("profile",), "is empty: nothing would be served; leave it out or write [profile.default]"
    yield from _check_storage(("storage", "dsn"), config.storage)


def _check_storage(key: Key, storage: StorageConfig) -> Iterator[Problem]:
    if (storage.type == "postgresql") != bool(storage.dsn):
        yield key, 'goes with type = "postgresql", and only with it'
    elif storage.dsn and not _DSN.fullmatch(storage.dsn):
        # Said without the value: it may hold a password.
        yield key, "is not postgresql://USER@HOST:PORT/DATABASE (a password goes into password_file)"
    elif storage.dsn:
        try:
            check_protected(storage.dsn)
        except ConfigurationError as error:
            yield key, f"is open to whoever sits on the way: {error}"


def _check_api(config: Config) -> Iterator[Problem]:
    known: dict[str, str] = {}
    for name, client in config.api.items():
        if client.profile:
            yield from _reference(("api", name, "profile"), client.profile, "profile", config.profile)
        if (other := known.setdefault(client.token_sha256, name)) != name:
            yield ("api", name, "token_sha256"), f"is that of [api.{other}], too: make a token for each client"


def _check_profile(key: Key, profile: ProfileConfig, config: Config) -> Iterator[Problem]:
    yield from _reference((*key, "ca"), profile.ca, "ca", config.ca)
    yield from _reference((*key, "authorizer"), profile.authorizer, "aaa", config.aaa)
    yield from _check_judges(key, profile, config)
    if profile.ra:
        yield from _reference((*key, "ra"), profile.ra, "ra", config.ra)
    elif ca := config.ca.get(profile.ca):
        if not ca.scep_key_usage:
            yield (*key, "ra"), f'is "": set scep_key_usage = true in [ca.{profile.ca}], or name an [ra.NAME]'
        if not ca.key_type.startswith("rsa"):
            yield (*key, "ra"), f'is "", but clients encrypt to RSA: choose an rsa key_type in [ca.{profile.ca}]'
    yield from _trust_references(key, profile, config)
    if (profile.challenge == "static") != bool(profile.static_challenge_sha256):
        yield (*key, "static_challenge_sha256"), 'goes with challenge = "static", and only with it'
    if (profile.challenge == "anonymous") != profile.insecure_anonymous:
        yield (
            (*key, "insecure_anonymous"),
            'goes with challenge = "anonymous", and only with it: nothing then proves who asks',
        )
    for option, compiles in _COMPILERS.items():
        try:
            compiles(profile)
        except ValueError as error:
            yield (*key, option), f"is not usable: {error}"


def _check_judges(key: Key, profile: ProfileConfig, config: Config) -> Iterator[Problem]:
    """Check that who is asked about challenges is asked about nothing else, and nobody else about them."""
    option = (*key, "challenge_authorizer")
    if (profile.challenge == "webhook") != bool(profile.challenge_authorizer):
        yield option, 'goes with challenge = "webhook", and only with it'
    elif profile.challenge_authorizer:
        yield from _reference(option, profile.challenge_authorizer, "aaa", config.aaa)
        if profile.challenge_authorizer in config.aaa and not _is_judge(profile.challenge_authorizer, config):
            yield option, f'names [aaa.{profile.challenge_authorizer}], which is not of kind = "SCEPCHALLENGE"'
    if _is_judge(profile.authorizer, config):
        yield (*key, "authorizer"), f"names [aaa.{profile.authorizer}], which knows challenges only"


def _is_judge(authorizer: str, config: Config) -> bool:
    table = config.aaa.get(authorizer)
    return isinstance(table, HttpConfig) and table.kind == "SCEPCHALLENGE"


# Options with a grammar of their own, and what reads it at start.
_COMPILERS: Final[Mapping[str, Callable[[ProfileConfig], object]]] = {
    "device_id": lambda profile: check_rules(profile.device_id),
    "subject": lambda profile: NamingRules.compile(subject=profile.subject),
    "subject_allowed": lambda profile: NamingRules.compile(subject_allowed=profile.subject_allowed),
    "subject_alt_name": lambda profile: NamingRules.compile(subject_alt_name=profile.subject_alt_name),
}


def _check_authorizer(key: Key, authorizer: AuthorizerConfig, config: Config) -> Iterator[Problem]:
    match authorizer:
        case ChainTable():
            for member in authorizer.members:
                yield from _reference((*key, "members"), member, "aaa", config.aaa)
                if _is_judge(member, config):
                    yield (*key, "members"), f"name [aaa.{member}], which knows challenges only"
            if way := _round_trip(str(key[-1]), config.aaa):
                yield (*key, "members"), f"lead back to the chain itself: {' asks '.join(way)}"
        case PlugInConfig():
            try:
                check_type(authorizer.type, TYPES)
            except ConfigurationError as error:
                yield (*key, "type"), f"is not usable: {error}"


def _round_trip(chain: str, authorizers: Mapping[str, AuthorizerConfig]) -> tuple[str, ...]:
    """Return the names on a way from a chain by its members back to itself, () where there is none."""
    ways: list[tuple[str, ...]] = [(chain,)]
    seen = set()
    while ways:
        way = ways.pop()
        table = authorizers.get(way[-1])
        for member in table.members if isinstance(table, ChainTable) else ():
            if member == chain:
                return (*way, chain)
            if member not in seen:
                seen.add(member)
                ways.append((*way, member))
    return ()


def _check_trust(key: Key, trust: TrustConfig) -> Iterator[Problem]:
    if not trust.certificates and not trust.issued_by:
        yield (*key, "certificates"), "is empty: name the PEM files of whom to trust"
    for option in _NOT_FOR[trust.type]:
        if getattr(trust, option) != TrustConfig.model_fields[option].default:
            yield (*key, option), f'does not go with type = "{trust.type}"'


def _trust_references(key: Key, profile: ProfileConfig, config: Config) -> Iterator[Problem]:
    for option, kind in (("manufacturers", "manufacturer"), ("trusted_ras", "ra")):
        for name in getattr(profile, option):
            yield from _reference((*key, option), name, "trust", config.trust)
            if name in config.trust and config.trust[name].type != kind:
                yield (*key, option), f'names [trust.{name}], which is not of type "{kind}"'


def _reference(key: Key, name: str, table: str, known: Iterable[str]) -> Iterator[Problem]:
    if name not in known:
        yield key, f"names [{table}.{name}], which is not there{_did_you_mean(name, known, (table,))}"


# Options of [trust.NAME] by the type that knows nothing of them.
_NOT_FOR: Final = {"manufacturer": ("issued_by",), "ra": ("check_validity", "allow_sha1", "organization", "products")}


# --- the template --------------------------------------------------------------------------------------------------

_INTRODUCTION: Final = """\
Configuration of scep-ra (TOML). Every option stands here with its help and, behind a #, its default: take the # away
and change the value. Tables with a name, such as [ca.NAME], [aaa.NAME] and [profile.NAME], may be repeated under other
names. A table behind a # is an example to copy. `scep-ra check-config` checks the file."""


def render_template(config: Config = DEFAULTS) -> str:
    """Return TOML that loads as this configuration, with the help of every option; defaults are commented out."""
    return "\n".join((*_comment(_INTRODUCTION), *_render_table(config, ()))) + "\n"


def _render_table(table: Table, key: Key, explained: Collection[str | None] | None = None) -> Iterator[str]:
    """Yield the lines of a table and of those below it.

    For an example, all commented out, `explained` has the help that a table of the same kind above it has given.
    """
    tables: list[tuple[Key, Table, Collection[str | None] | None]] = []
    for name, field in type(table).model_fields.items():
        match getattr(table, name):
            case Table() as child:
                tables.append(((*key, name), child, explained))
            case dict() as named if kinds := _kinds(field.annotation):
                tables += [((*key, name, part), child, None) for part, child in named.items()]
                there = {type(child) for child in named.values()}
                helps = {field.description for kind in there for field in kind.model_fields.values()}
                examples = {part: _example(kind) for part, kind in kinds.items() if kind not in there}
                tables += [((*key, name, part), child, helps) for part, child in examples.items()]
            case value:
                if field.description not in (explained or ()):
                    yield ""
                    yield from _comment(f"{field.description} {_allowed(field)}")
                is_comment = explained is not None or value == field.default
                yield f"{'#' if is_comment else ''}{name} = {_toml(value)}"
    for path, child, known in tables:
        yield from ("", "", f"{'' if known is None else '#'}[{_dotted(path)}]")
        yield from _comment(str(type(child).__doc__))
        yield from _render_table(child, path, known)


def _kinds(annotation: Any) -> Mapping[str, type[Table]]:
    """Return the classes of the tables below an option, each by a name for an example; none for a plain mapping."""
    element = get_args(annotation)[1] if get_origin(annotation) is dict else None
    return {"name": element} if isinstance(element, type) and issubclass(element, Table) else _choices(element)


def _example(kind: type[Table]) -> Table:
    """Return a table in which the options without a default have the value of their example."""
    required = {name: _example_of(field) for name, field in kind.model_fields.items() if field.is_required()}
    return kind.model_validate_json(json.dumps(required))


def _example_of(field: FieldInfo) -> object:
    return next(iter(field.examples or ()))


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, width=120, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)


def _allowed(field: FieldInfo) -> str:
    """Say in brackets which values the model takes, where it is a choice or has two bounds."""
    is_array = get_origin(field.annotation) is tuple
    element = get_args(field.annotation)[0] if is_array else field.annotation
    choices = get_args(element) if get_origin(element) is Literal else ()
    bounds = [getattr(part, name) for part in field.metadata for name in ("ge", "le") if hasattr(part, name)]
    if len(choices) > 1:
        return f"({'any' if is_array else 'one'} of {', '.join(map(_toml, choices))})"
    return f"({bounds[0]} to {bounds[1]})" if len(bounds) > 1 else ""


def _toml(value: object) -> str:
    """Write a value of an option as TOML; strings, numbers, booleans and arrays read the same in JSON and TOML."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_toml(name)} = {_toml(each)}' for name, each in value.items())}}}"
    return json.dumps(value, ensure_ascii=False)
