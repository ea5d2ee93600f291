"""`countersign decode`: what an attestation header is made of, without its content."""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from typing import Any

from agent.commands.common import CommandFailed, check_no_overrides, fail, start_logging
from agent.commands.token_input import (
    INPUT_HELP,
    STATUSES,
    Presented,
    SecretParser,
    opened,
    presented,
    why_no_envelope,
)
from proxy.attestation import Envelope, envelope, failure
from proxy.token_shape import Guess, Tagged, TokenShape, token_shape


def main(argv: Sequence[str], overrides: Sequence[str]) -> int:
    parser = SecretParser(
        "decode",
        "Print the envelope of an attestation header, its status by name, and the shape of its token: types, names, "
        "lengths and digests, not what it says. What is inside of a token is guessed: by contract it is opaque. The "
        "exit code is 0 for an envelope or a bare token, 1 for what is neither, 2 for what cannot be read.",
    )
    parser.add_argument("header", nargs="?", metavar="FILE|-|HEADER", help=INPUT_HELP)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--reveal", action="store_true", help="print the token and what was decoded of it as well")
    arguments = parser.parse_args(argv)
    start_logging(arguments.verbose)
    try:
        check_no_overrides("decode", overrides)
        return _decode(presented(arguments.header), arguments)
    except CommandFailed as exc:
        return fail("decode", exc)
    except BrokenPipeError:
        raise
    except OSError as exc:
        return fail("decode", CommandFailed(f"the shape cannot be printed: {exc.strerror}", 2))


def _decode(given: Presented, arguments: argparse.Namespace) -> int:
    found, token = None, given.token
    if given.header is not None:
        found = opened(given.header)
        if found is None:
            raise CommandFailed(f"this is not an attestation envelope: {why_no_envelope(given.header)}")
        token = found.token
    shape = None if token is None else token_shape(token)
    if arguments.json:
        print(json.dumps(_as_json(given, found, token, shape, arguments.reveal), indent=2))
        return 0
    _print_envelope(given, found)
    if token is not None and shape is not None:
        _print_shape(token, shape, arguments.reveal)
    return 0


def _is_canonical(header: str, found: Envelope) -> bool:
    """Whether the value is byte for byte what the original would write."""
    assert found.status is not None
    expected = failure(found.status).header if found.token is None else envelope(found.token)
    return header == expected


def _print_envelope(given: Presented, found: Envelope | None) -> None:
    if found is None or found.status is None or given.header is None:
        print("envelope  none: this is a bare token")
        return
    print(f"envelope  version 1, status {int(found.status)}: {found.status.name} ({STATUSES[found.status]})")
    if not _is_canonical(given.header, found):
        print("          not written as the original writes it: compact, in the order v, s, t")
    if found.token is None:
        print("token     none")


def _print_shape(token: str, shape: TokenShape, reveal: bool) -> None:
    from agent.commands.report import print_table

    version = f", version {shape.version}" if shape.version else ""
    digest = f", sha256 {shape.sha256}..." if shape.sha256 else ""
    print(f"token     {shape.length} characters{version}{digest}")
    if reveal:
        print(f"          {json.dumps(token)}")
    for guess in shape.guesses:
        print(f"guess     {guess.format}: {'it fits' if guess.fits else guess.why_not}")
    if shape.best is None:
        return
    print(f"\nas {shape.best.format}, which is a guess:")
    rows = [
        (
            one.path,
            one.type,
            "" if one.length is None else str(one.length),
            f"{one.sha256}..." if one.sha256 else "",
            one.looks_like or "",
        )
        for one in shape.best.fields
    ]
    print_table(("field", "type", "length", "sha256", "looks like"), rows, sys.stdout)
    if shape.best.is_cut:
        print(f"(and more: only the first {len(rows)} are shown)")
    if reveal:
        print(json.dumps(_printable(shape.best.content), indent=2))


def _as_json(
    given: Presented, found: Envelope | None, token: str | None, shape: TokenShape | None, reveal: bool
) -> dict[str, Any]:
    content: dict[str, Any] = {"envelope": None, "token": None}
    if found is not None and found.status is not None and given.header is not None:
        content["envelope"] = {
            "v": 1,
            "s": int(found.status),
            "status": found.status.name,
            "as_the_original_writes_it": _is_canonical(given.header, found),
        }
    if token is not None and shape is not None:
        content["token"] = {
            "length": shape.length,
            "sha256_prefix": shape.sha256,
            "version": shape.version,
            "guesses": [_guess_as_json(guess, reveal) for guess in shape.guesses],
        }
        if reveal:
            content["token"]["text"] = token
    return content


def _guess_as_json(guess: Guess, reveal: bool) -> dict[str, Any]:
    content: dict[str, Any] = {"format": str(guess.format), "fits": guess.fits}
    if not guess.fits:
        return {**content, "why_not": guess.why_not}
    content["fields"] = [
        {
            "path": one.path,
            "type": one.type,
            "length": one.length,
            "sha256_prefix": one.sha256,
            "looks_like": one.looks_like,
        }
        for one in guess.fields
    ]
    content["cut"] = guess.is_cut
    return {**content, "content": _printable(guess.content)} if reveal else content


def _printable(content: Any) -> Any:
    """Decoded content as JSON can say it."""
    match content:
        case dict():
            return {name if isinstance(name, str) else repr(name): _printable(value) for name, value in content.items()}
        case list() | tuple():
            return [_printable(value) for value in content]
        case Tagged():
            return {"tag": content.number, "content": _printable(content.content)}
        case bytes():
            return {"hex": content.hex()}
        case str() | int() | None:
            return content
        case float() if math.isfinite(content):
            return content
        case _:
            return repr(content)
