"""The JSON Schema bundle that codex-cli 0.169.0 prints, where it is at hand (../shared beside the checkout)."""

import functools
import json
from pathlib import Path
from typing import Any

import jsonschema

BUNDLE = Path(__file__).parents[4] / "shared/protocol/schema/codex_app_server_protocol.v2.schemas.json"
QUESTIONS = BUNDLE.with_name("codex_app_server_protocol.schemas.json")
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


# What did not fit of all that a server of ours has sent in a test; tests/agent/conftest.py looks here after each test.
MISFITS: list[str] = []
# Answers that are not called after their parameters, or have none.
_ANSWERS = {
    "account/logout": "LogoutAccountResponse",
    "account/rateLimits/read": "GetAccountRateLimitsResponse",
    "configRequirements/read": "ConfigRequirementsReadResponse",
}


@functools.cache
def _answers() -> dict[str, str]:
    """method -> name of its answer's definition."""
    found = dict(_ANSWERS)
    for variant in _definitions()["ClientRequest"]["oneOf"]:
        reference = variant["properties"].get("params", {}).get("$ref", "")
        name = reference.rpartition("/")[2].replace("Params", "Response")
        if name in _definitions():
            found[variant["properties"]["method"]["enum"][0]] = name
    return found


@functools.cache
def _questions() -> dict[str, jsonschema.Draft7Validator]:
    """method of a request of the server -> what its params must be; these stand in the bundle of all versions."""
    definitions = json.loads(QUESTIONS.read_text("utf-8"))["definitions"]
    return {
        variant["properties"]["method"]["enum"][0]: jsonschema.Draft7Validator(
            {"$ref": variant["properties"]["params"]["$ref"], "definitions": definitions}
        )
        for variant in definitions["ServerRequest"]["oneOf"]
    }


def is_checked(method: str) -> bool:
    """Whether there is a schema of what this method is answered with."""
    return method in _answers()


class Listener:
    """Checks what a server says on one connection, with what was asked of it."""

    def __init__(self) -> None:
        self._asked: dict[Any, str] = {}

    def asked(self, text: str) -> None:
        """A client has sent this; whatever is no request counts for nothing."""
        try:
            message = json.loads(text)
        except ValueError:
            return
        if isinstance(message, dict) and isinstance(message.get("id"), int | str):
            self._asked[message["id"]] = str(message.get("method"))

    def heard(self, message: dict[str, Any]) -> None:
        """The server has said this."""
        problem = misfit_of_message(message, self._asked) if is_there() else None
        if problem is not None:
            MISFITS.append(problem)


def misfit_of_message(message: dict[str, Any], asked: dict[Any, str]) -> str | None:
    """Why a message of a server is not as published: a notification, a request, or an answer to what was asked."""
    match message:
        case {"method": method, "id": _}:
            if method not in _questions():
                return f"{method} is no request of the original's server"
            error = next(_questions()[method].iter_errors(message["params"]), None)
            return None if error is None else f"{method}: {error.json_path}: {error.message[:400]}"
        case {"method": method}:
            return misfit_of_notification(method, message.get("params"))
        case {"result": result} if (method := asked.get(message["id"], "")) in _answers():
            return misfit(_answers()[method], result)
        case {"error": {"code": int(), "message": str()}} | {"result": _}:
            return None
    return f"no message of the protocol: {json.dumps(message)[:400]}"
