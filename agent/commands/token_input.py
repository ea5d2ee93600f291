"""How `decode` and `verify-token` are handed a header or a token: a file, stdin, or an argument that is never shown."""

import json
import re
import sys
from dataclasses import dataclass, field
from typing import Any, NoReturn

from agent.commands.common import CommandFailed, Parser
from proxy.attestation import ATTESTATION_HEADER, AttestationStatus, Envelope, open_envelope

# Longest input, in bytes: some times the longest header.
MAX_INPUT_BYTES = 256 * 1024

INPUT_HELP = (
    "a file, or - for stdin (the default); a header or a token itself is taken too, but other users of the machine may "
    "see arguments"
)

STATUSES = {
    AttestationStatus.OK: "the desktop gave a token",
    AttestationStatus.TIMEOUT: "the desktop did not answer in time",
    AttestationStatus.FAILED: "the desktop answered with an error, or was gone",
    AttestationStatus.CANCELED: "the question was cancelled",
    AttestationStatus.MALFORMED: "the desktop's answer was no token",
}


class SecretParser(Parser):
    """A parser whose errors name the option and not what was typed, which may be a token."""

    def error(self, message: str) -> NoReturn:
        # argparse's texts that quote nothing, and the name in front of those that quote a value.
        if not message.startswith("the following arguments are required: "):
            argument = re.match(r"argument (?P<name>-[-/a-zA-Z ,]*):", message)
            what = f"{argument['name']} cannot be used so" if argument else "some arguments are too many or unknown"
            hint = "" if argument else "put a header into quotes, or into a file; "
            hint += self.what_is_known("" if argument else message)
            message = f"{what} (what was typed is not shown, since it may be a token); {hint}"
        super().error(message)


@dataclass(frozen=True, slots=True)
class Presented:
    """What was handed in: the value of a header, or a bare token. One of them is None."""

    header: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)


def presented(argument: str | None) -> Presented:
    """Read what the argument names, or is.

    Raises:
        CommandFailed: It cannot be read, or is neither a header nor a token; code 2.
    """
    if argument is not None and _is_literal(argument.strip()):
        return _taken_apart(argument)
    return _taken_apart(read_text(argument or "-", "the header or token"))


def read_text(source: str, what: str) -> str:
    """The text of a file, or of stdin for "-".

    Raises:
        CommandFailed: It cannot be read, is too long or no text; code 2. It does not say which file: what was meant as
            a token may have been taken for its name.
    """
    try:
        if source == "-":
            content = sys.stdin.buffer.read(MAX_INPUT_BYTES + 1)
        else:
            with open(source, "rb") as file:
                content = file.read(MAX_INPUT_BYTES + 1)
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the path
        reason = exc.strerror if isinstance(exc, OSError) else "not a file name"
        raise CommandFailed(f"{what} cannot be read from the file that was named: {reason}", 2) from exc
    if len(content) > MAX_INPUT_BYTES:
        raise CommandFailed(f"{what} is longer than {MAX_INPUT_BYTES} bytes, and so is none", 2)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise CommandFailed(f"{what} should be text, and holds bytes that are none; encode them as base64", 2) from exc


def why_no_envelope(value: str) -> str:
    """Why `open_envelope` does not take a value, without quoting it."""
    try:
        content = json.loads(value, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError):
        return "it is no JSON"
    if not isinstance(content, _Pairs):
        return "it is no JSON object"
    members: dict[str, Any] = dict(content)
    if len(members) != len(content):
        return "a member is there twice"
    if type(members.get("v")) is not int or members["v"] != 1:
        return "its version, v, is not 1"
    if type(members.get("s")) is not int or members["s"] not in list(AttestationStatus):
        return f"its status, s, is none of {', '.join(str(int(one)) for one in AttestationStatus)}"
    if strangers := set(members) - {"v", "s", "t"}:
        return f"it has {len(strangers)} members besides v, s and t"
    if "t" in members and not isinstance(members["t"], str):
        return "its token, t, is no string"
    return "it has status 0 and no token, t" if members["s"] == 0 else "it has a token, t, and a status that is not 0"


class _Pairs(list[tuple[str, Any]]):
    """The members of an object, twins too."""


def opened(header: str) -> Envelope | None:
    """The envelope, or None if the value is none."""
    envelope = open_envelope(header)
    return envelope if envelope.status is not None else None


_NAME = re.compile(rf"\s*{re.escape(ATTESTATION_HEADER)}\s*:", re.IGNORECASE)


def _is_literal(text: str) -> bool:
    return text.startswith("{") or bool(_NAME.match(text) or re.match(r"v[0-9]{1,3}\..", text))


def _taken_apart(text: str) -> Presented:
    text = text.strip()
    if not text:
        raise CommandFailed("a header or a token is needed, found nothing", 2)
    named = [line[match.end() :].strip() for line in text.splitlines() if (match := _NAME.match(line))]
    if len(named) > 1:
        raise CommandFailed(f"one {ATTESTATION_HEADER} header is needed, found {len(named)}", 2)
    if named:
        return Presented(header=named[0])
    if text.startswith("{"):
        return Presented(header=text)
    if not (text.isascii() and text.isprintable()) or " " in text:
        raise CommandFailed(
            f"a header, as {ATTESTATION_HEADER}: {{...}} or its value, or a token in one line is needed; found "
            "something else",
            2,
        )
    return Presented(token=text)
