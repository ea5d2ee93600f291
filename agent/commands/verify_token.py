"""`countersign verify-token`: ask Apple's DeviceCheck server, or a stand-in of it, whether a token is genuine."""

import argparse
import json
import math
import os
import re
import ssl
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from agent.commands.common import CommandFailed, check_no_overrides, fail, run, start_logging
from agent.commands.token_input import (
    INPUT_HELP,
    STATUSES,
    Presented,
    SecretParser,
    opened,
    presented,
    read_text,
    why_no_envelope,
)

if TYPE_CHECKING:
    from proxy.devicecheck import Answer, Environment, TeamKey, Verdict

KEY_VARIABLE = "DEVICECHECK_KEY"
KEY_ID_VARIABLE = "DEVICECHECK_KEY_ID"
TEAM_ID_VARIABLE = "DEVICECHECK_TEAM_ID"

VALID, INVALID, USAGE, UNAVAILABLE = 0, 1, 2, 3

WHO = """
Only the owner of the app's team key can ask Apple: the key must be made for DeviceCheck on developer.apple.com, by the
team whose app made the token. Nobody else can check a token of a foreign app, such as OpenAI's. For everybody else
there is `countersign standin apple`: the same wire, with a key and tokens of its own (--server, --server-ca).

exit codes: 0 the token is valid; 1 it is not; 2 usage, or the key or the request is refused; 3 no answer, or none that
says anything of the token
"""


def main(argv: Sequence[str], overrides: Sequence[str]) -> int:
    parser = SecretParser(
        "verify-token",
        "Ask Apple's DeviceCheck server whether a device token is genuine. The token may be bare, or in an attestation "
        "header. A token is meant to be asked about once, soon after it was made.",
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = WHO.strip()
    parser.add_argument("token", nargs="?", metavar="FILE|-|HEADER", help=INPUT_HELP)
    parser.add_argument(
        "--key", metavar="FILE", help=f"the team key, a .p8 file, or - for stdin (default: its text in ${KEY_VARIABLE})"
    )
    parser.add_argument(
        "--key-id", metavar="ID",
        help=f"ten characters (default: ${KEY_ID_VARIABLE}, or of the file's name AuthKey_ID.p8)",
    )  # fmt: skip
    parser.add_argument("--team-id", metavar="ID", help=f"ten characters (default: ${TEAM_ID_VARIABLE})")
    parser.add_argument(
        "--environment", choices=["production", "development"], default="production",
        help="production (default): a build of TestFlight, App Store or Developer ID; development: one signed by Xcode",
    )  # fmt: skip
    parser.add_argument(
        "--try-other-environment", action="store_true",
        help="ask the other environment too, once, if the token may be of that one",
    )  # fmt: skip
    parser.add_argument(
        "--device-token-field", metavar="PATH",
        help="where the device token is inside of the token, as `countersign decode` lists the fields; . is all of it",
    )  # fmt: skip
    parser.add_argument("--server", metavar="URL", help="ask this server instead of Apple's, such as a stand-in")
    parser.add_argument("--other-server", metavar="URL", help="with --server: that of the other environment")
    parser.add_argument(
        "--server-ca", metavar="FILE", help="with --server: the PEM authorities to trust, and no others"
    )
    parser.add_argument(
        "--timeout", type=_positive, default=15.0, metavar="SECONDS", help="for all attempts together (default: 15)"
    )
    parser.add_argument(
        "--attempts", type=_count, default=3, metavar="N", help="how often a server without an answer is asked (3)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args(argv)
    start_logging(arguments.verbose)
    try:
        check_no_overrides("verify-token", overrides)
        question = _Question(arguments, os.environ)
    except CommandFailed as exc:
        return fail("verify-token", exc)
    try:
        code = run("verify-token", question.ask())
        print(end="", flush=True)
        return code
    except OSError as exc:  # also of a pipe that nobody reads any more: its usual code is none of ours
        return fail("verify-token", CommandFailed(f"the answer cannot be printed: {exc.strerror}", UNAVAILABLE))
    except Exception as exc:
        # Python would end with 1, which is a verdict here. Where, and not what: the text may quote what was sent.
        place = traceback.extract_tb(exc.__traceback__)[-1]
        where = f"{Path(place.filename).name}, line {place.lineno}"
        problem = f"an error of countersign itself ({type(exc).__name__} in {where}), which says nothing of the token"
        return fail("verify-token", CommandFailed(problem, UNAVAILABLE))


def _positive(text: str) -> float:
    number = float(text)
    if not (math.isfinite(number) and number > 0):
        raise ValueError
    return number


def _count(text: str) -> int:
    if not re.fullmatch("[1-9]", text):
        raise ValueError
    return int(text)


class _Question:
    """What the arguments come to.

    Raises:
        CommandFailed: They cannot be used; code 2.
    """

    def __init__(self, arguments: argparse.Namespace, environ: Mapping[str, str]) -> None:
        from proxy.devicecheck import Environment, Patience

        if arguments.key == "-" and arguments.token in (None, "-"):
            raise CommandFailed("key and token cannot both come from stdin; put one of them into a file", USAGE)
        self.environment = Environment(arguments.environment)
        self.try_other: bool = arguments.try_other_environment
        self.as_json: bool = arguments.json
        self.patience = Patience(arguments.timeout, arguments.attempts)
        self.servers = _servers(arguments, self.environment)
        self.context = _trust(arguments)
        self.key = _team_key(arguments, environ)
        self.token = _device_token(presented(arguments.token), arguments.device_token_field)

    async def ask(self) -> int:
        from proxy.devicecheck import decisive, validate

        answers = await validate(
            self.token,
            self.key,
            self.environment,
            context=self.context,
            servers=self.servers,
            patience=self.patience,
            try_other=self.try_other,
        )
        answer = decisive(answers)
        code = exit_code(answer.verdict)
        if self.as_json:
            print(json.dumps({**_as_json(answer, self.servers), "exit_code": code, "asked": len(answers)}, indent=2))
            return code
        print(f"{str(answer.verdict):<14}{answer.reason}")
        for name, value in _as_json(answer, self.servers).items():
            if name not in ("verdict", "reason") and (value is not None or name == "status_code"):
                print(f"{name:<14}{value if isinstance(value, str) and value.isprintable() else json.dumps(value)}")
        if answer.environment is not self.environment:
            print(f"note          asked of {self.environment} first, which said: {answers[0].verdict}")
        return code


def exit_code(verdict: "Verdict") -> int:
    """The exit code for a verdict: whose fault it is."""
    from proxy.devicecheck import Verdict

    return {
        Verdict.VALID: VALID,
        Verdict.INVALID_TOKEN: INVALID,
        Verdict.AUTH_MALFORMED: USAGE,
        Verdict.AUTH_REJECTED: USAGE,
        Verdict.REQUEST_ERROR: USAGE,
        Verdict.UNAVAILABLE: UNAVAILABLE,
        Verdict.UNEXPECTED: UNAVAILABLE,
    }[verdict]


def _as_json(answer: "Answer", servers: "Mapping[Environment, str]") -> dict[str, Any]:
    return {
        "verdict": str(answer.verdict),
        "reason": answer.reason,
        "status_code": answer.status_code,
        "is_ok": answer.is_ok,
        "text": answer.text,
        "environment": str(answer.environment),
        "server": servers[answer.environment],
        "attempts": answer.attempts,
        "transaction": answer.transaction_id,
        "apple_request": answer.apple_request_id,
    }


def _servers(arguments: argparse.Namespace, environment: "Environment") -> "Mapping[Environment, str]":
    from proxy.devicecheck import SERVERS

    if arguments.server is None:
        for name in ("other_server", "server_ca"):
            if getattr(arguments, name) is not None:
                raise CommandFailed(f"--{name.replace('_', '-')} needs --server; without one Apple is asked", USAGE)
        return SERVERS
    if arguments.try_other_environment != (arguments.other_server is not None):
        # Never half at a stand-in and half at Apple's.
        raise CommandFailed("with --server, --try-other-environment and --other-server go together", USAGE)
    servers = {environment: _url("--server", arguments.server)}
    if arguments.other_server is not None:
        servers[environment.other] = _url("--other-server", arguments.other_server)
    return servers


def _url(option: str, text: str) -> str:
    """Not quoted in the error: there may be a password in it."""
    try:
        parts = urlsplit(text)
        fine = parts.scheme == "https" and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fine = False
    if not fine or "@" in parts.netloc or parts.query or parts.fragment or not text.isascii() or not text.isprintable():
        raise CommandFailed(f"{option} must be https://HOST[:PORT][/PATH], without user, query and fragment", USAGE)
    return text.rstrip("/")


def _trust(arguments: argparse.Namespace) -> ssl.SSLContext:
    from certs.trust import client_context, platform_roots

    if arguments.server_ca is None:
        roots = platform_roots()
        try:
            return ssl.create_default_context(cafile=roots)
        except OSError as exc:
            problem = f"the platform's roots in {str(roots)!r} cannot be read; set SSL_CERT_FILE"
            raise CommandFailed(problem, USAGE) from exc
    try:
        return client_context(read_text(arguments.server_ca, "--server-ca").encode())
    except (ssl.SSLError, ValueError) as exc:
        raise CommandFailed("--server-ca should be a file of PEM certificates, and holds none", USAGE) from exc


def _team_key(arguments: argparse.Namespace, environ: Mapping[str, str]) -> "TeamKey":
    from proxy.devicecheck import KeyUnusable, TeamKey

    key, key_id = arguments.key, arguments.key_id or environ.get(KEY_ID_VARIABLE)
    team_id = arguments.team_id or environ.get(TEAM_ID_VARIABLE)
    if key is None and KEY_VARIABLE not in environ:
        raise CommandFailed(
            f"a team key is needed: --key FILE.p8 or ${KEY_VARIABLE}. Only the team that owns the app has one; "
            "`countersign standin apple` makes one for its own tokens",
            USAGE,
        )
    if key is not None and not key_id and (match := re.fullmatch(r"AuthKey_([A-Z0-9]{10})\.p8", Path(key).name)):
        key_id = match[1]
    if not key_id:
        raise CommandFailed(f"the key's id is needed: --key-id or ${KEY_ID_VARIABLE}", USAGE)
    if not team_id:
        raise CommandFailed(f"the team's id is needed: --team-id or ${TEAM_ID_VARIABLE}", USAGE)
    text = environ[KEY_VARIABLE] if key is None else read_text(key, "the team key")
    try:
        return TeamKey.load(text.encode(), key_id, team_id)
    except KeyUnusable as exc:
        raise CommandFailed(str(exc), USAGE) from None


def _device_token(given: Presented, path: str | None) -> str:
    """The device token in what was handed in, as Apple wants it."""
    from proxy.devicecheck import device_token
    from proxy.token_shape import FieldMissing, field_at, split_version, token_shape

    token = _token(given)
    version, payload = split_version(token)
    content: Any = payload
    if path is None:
        shape = token_shape(token)
        # A device token itself is no structure; it is inside of what is one.
        if shape.best is not None and len(shape.best.fields) > 1:
            raise CommandFailed(
                f"the token seems to hold {len(shape.best.fields)} fields ({shape.best.format}); name the one with the "
                "device token by --device-token-field; `countersign decode` lists them",
                USAGE,
            )
    elif path != ".":
        best = token_shape(token).best
        if best is None:
            raise CommandFailed(
                "--device-token-field: the token could not be decoded; `countersign decode` says why", 2
            )
        try:
            content = field_at(best.content, path)
        except FieldMissing as exc:
            raise CommandFailed(f"--device-token-field: {exc}; `countersign decode` lists the fields", USAGE) from exc
        if not isinstance(content, str | bytes):
            raise CommandFailed("--device-token-field: what lies there is neither a string nor bytes", USAGE)
    try:
        return device_token(content)
    except ValueError as exc:
        raise CommandFailed(str(exc), USAGE) from exc


def _token(given: Presented) -> str:
    if given.token is not None:
        return given.token
    assert given.header is not None
    envelope = opened(given.header)
    if envelope is None or envelope.status is None:
        raise CommandFailed(f"this is not an attestation envelope: {why_no_envelope(given.header)}", USAGE)
    if envelope.token is None:
        status = f"status {int(envelope.status)}, {envelope.status.name}: {STATUSES[envelope.status]}"
        raise CommandFailed(f"there is nothing to verify: the header carries no token ({status})", USAGE)
    return envelope.token
