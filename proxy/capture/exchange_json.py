"""An exchange as plain data, for files, pages and programs; and back. Pure."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from proxy.attestation import AttestationStatus
from proxy.capture.exchange import Exchange, Phase, SocketTurn, Stamp, Transport

_ENUMS = {"transport": Transport, "stamp": Stamp, "phase": Phase}
_NAMES = frozenset(field.name for field in dataclasses.fields(Exchange))
# Seconds, and how many turns of one socket; a file may say anything.
_MOST_S = 2e11
_MOST_TURNS = 1000


def exchange_as_json(exchange: Exchange) -> dict[str, Any]:
    """All fields by their names; headers as lists of pairs, `attestation` as the number of its status or null."""
    content = {name: getattr(exchange, name) for name in _FIELDS}
    content["attestation"] = None if exchange.attestation is None else int(exchange.attestation)
    content["attested"] = exchange.attested
    content["turns"] = [dataclasses.asdict(turn) for turn in exchange.turns]
    return content


def exchange_from_json(content: Mapping[str, Any]) -> Exchange:
    """The exchange that `exchange_as_json` wrote; members that are not known here are ignored.

    Raises:
        ValueError: It is not one; the text says what is wrong, without the values.
    """
    given = {name: value for name, value in content.items() if name in _NAMES}
    try:
        for name, enum in _ENUMS.items():
            if name in given:
                given[name] = enum(given[name])
        if given.get("attestation") is not None:
            given["attestation"] = AttestationStatus(given["attestation"])
        for name in ("request_headers", "response_headers"):
            given[name] = tuple((str(key), str(value)) for key, value in given.get(name, ()))
        given["turns"] = tuple(_turn(turn) for turn in given.get("turns", ())[:_MOST_TURNS])
        return Exchange(**given)
    except (TypeError, ValueError) as exc:
        raise ValueError(f"not an exchange: {type(exc).__name__}") from None


def _turn(content: Mapping[str, Any]) -> SocketTurn:
    """Raises TypeError or ValueError."""
    turn = SocketTurn(**content)
    for name, value in content.items():
        is_missing = value is None and name in ("first_s", "last_s")
        if not is_missing and (isinstance(value, bool) or not 0 <= value < _MOST_S):  # NaN is not either
            raise ValueError(f"{name} of a turn is out of range")
    return turn


_FIELDS = tuple(field.name for field in dataclasses.fields(Exchange))
