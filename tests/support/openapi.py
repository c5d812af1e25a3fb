"""The description of the HTTP API, and whether an answer is as it says: as much of JSON Schema as it uses."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import scep_ra.web

DESCRIPTION: Final[dict[str, Any]] = json.loads((Path(scep_ra.web.__file__).parent / "openapi.json").read_text())
_TYPES: Final[Mapping[str, type | tuple[type, ...]]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
}
_KEYWORDS: Final = {
    "$ref", "oneOf", "type", "required", "properties", "additionalProperties", "items", "minItems", "enum", "pattern",
    "format", "description", "examples", "default",
}  # fmt: skip


def resolve(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a $ref names, or the schema itself."""
    while reference := schema.get("$ref"):
        schema = DESCRIPTION
        for part in reference.removeprefix("#/").split("/"):
            schema = schema[part]
    return schema


def check(value: Any, schema: Mapping[str, Any], where: str = "$") -> None:
    """Fail where a value is not as a schema says."""
    schema = resolve(schema)
    assert set(schema) <= _KEYWORDS, f"{where}: this check knows nothing of {set(schema) - _KEYWORDS}"
    if "oneOf" in schema:
        assert sum(_fits(value, each) for each in schema["oneOf"]) == 1, f"{where}: {value!r} is not one of them"
        return
    assert isinstance(value, _TYPES.get(schema.get("type", ""), object)), f"{where}: {value!r}"
    assert value in schema.get("enum", [value]), f"{where}: {value!r}"
    assert not isinstance(value, str) or re.search(schema.get("pattern", ""), value), f"{where}: {value!r}"
    if isinstance(value, dict):
        _check_members(value, schema, where)
    for number, each in enumerate(value if isinstance(value, list) else ()):
        check(each, schema.get("items", {}), f"{where}[{number}]")


def _check_members(value: Mapping[str, Any], schema: Mapping[str, Any], where: str) -> None:
    lacking = set(schema.get("required", ())) - set(value)
    assert not lacking, f"{where} lacks {lacking}"
    for name, each in value.items():
        described = schema.get("properties", {}).get(name, schema.get("additionalProperties"))
        assert described is not None, f"{where}.{name} is not described"
        check(each, described, f"{where}.{name}")


def _fits(value: Any, schema: Mapping[str, Any]) -> bool:
    try:
        check(value, schema)
    except AssertionError:
        return False
    return True


def check_answer(path: str, status: int, body: Any, *, method: str = "post") -> None:
    """Fail where an answer is not described, or not as described."""
    responses = DESCRIPTION["paths"][path][method]["responses"]
    assert str(status) in responses, f"{path} does not describe {status}"
    check(body, resolve(responses[str(status)])["content"]["application/json"]["schema"])
