"""The JSON Schema bundle that codex-cli 0.169.0 prints, where it is at hand (../shared beside the checkout)."""

import functools
import json
from pathlib import Path
from typing import Any

import jsonschema

BUNDLE = Path(__file__).parents[4] / "shared/protocol/schema/codex_app_server_protocol.v2.schemas.json"
MISSING = f"the original's schemas are not at {BUNDLE}; without them nothing is validated"


def is_there() -> bool:
    return BUNDLE.is_file()


@functools.cache
def _definitions() -> dict[str, Any]:
    definitions = json.loads(BUNDLE.read_text("utf-8"))["definitions"]
    assert isinstance(definitions, dict)
    return definitions


@functools.cache
def _notifications() -> dict[str, str]:
    """method -> name of its params' definition."""
    variants = _definitions()["ServerNotification"]["oneOf"]
    return {
        variant["properties"]["method"]["enum"][0]: variant["properties"]["params"]["$ref"].rpartition("/")[2]
        for variant in variants
    }


@functools.cache
def _validator(definition: str) -> jsonschema.Draft7Validator:
    schema = {"$ref": f"#/definitions/{definition}", "definitions": _definitions()}
    return jsonschema.Draft7Validator(schema)


def misfit(definition: str, value: Any) -> str | None:
    """Why `value` is not what the definition says; None if it is, or if there is no schema here."""
    if not is_there():
        return None
    error = jsonschema.exceptions.best_match(_validator(definition).iter_errors(value))
    return None if error is None else f"{definition}: {error.json_path}: {error.message[:400]}"


def misfit_of_notification(method: str, params: Any) -> str | None:
    """The same for the params of a notification."""
    if not is_there():
        return None
    if method not in _notifications():
        return f"{method} is no notification of the original"
    return misfit(_notifications()[method], params)
