"""What CODEX_HOME, its `.env` and its auth.json mean for scoped traffic. Pure.

`.env` is the odd one: the original sets what is in it over whatever its environment had, so that a stale line there
beats everything that a parent process has arranged (measured with codex-cli 0.163 behind `countersign run`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from agent.doctor.dotenv import Dotenv, Variable
from agent.doctor.findings import Finding, Level, Topic
from agent.doctor.proxy_variables import LOOPBACK_NAMES, Bypass, bypassing, no_proxy_entries, proxy_address
from agent.doctor.trust import TRUST_FILES


@dataclass(frozen=True, slots=True)
class HomeFacts:
    """The directory.

    Args:
        problem: Why it cannot be used, empty if it can.
        exists: False for the default one before it is first used.
        is_ours: It belongs to this user.
        may_write: This user may write there.
    """

    path: str
    problem: str = ""
    exists: bool = True
    mode: int = 0o700
    is_ours: bool = True
    may_write: bool = True


@dataclass(frozen=True, slots=True)
class DotenvFacts:
    """The file `.env`.

    Args:
        kind: "" for a regular file, else what it is: "a directory", "a FIFO".
        problem: Why it cannot be read, empty if it can.
        content: What is in it; None if it is not there or cannot be read.
    """

    path: str
    exists: bool = False
    kind: str = ""
    problem: str = ""
    mode: int = 0o600
    content: Dotenv | None = None


@dataclass(frozen=True, slots=True)
class SignInFacts:
    """The file auth.json.

    Args:
        mode: "chatgpt" or "apikey"; None if nobody is signed in.
        problem: Why it cannot be used, without anything that is in it.
    """

    path: str
    mode: str | None = None
    problem: str = ""
    others_may_read: bool = False


def home_findings(home: HomeFacts) -> list[Finding]:
    """Whether the directory can be used, and by whom."""
    looked_at = f"CODEX_HOME {home.path!r}"
    if home.problem:
        advice = "make it a directory that you may enter, or set CODEX_HOME to one"
        return [Topic.HOME.problem(looked_at, home.problem, advice)]
    if not home.exists:
        return [Topic.HOME.note(looked_at, "is not there yet; it is made on first use")]
    if not home.may_write:
        text = "cannot be written by this user: codex does not start with it, and countersign keeps nothing there"
        advice = f"chmod u+w {home.path!r}, or remount it, or set CODEX_HOME to a directory of yours"
        return [Topic.HOME.problem(looked_at, text, advice)]
    if writable := _writable(looked_at, home.path, home.mode):
        return writable
    if not home.is_ours:
        text = "belongs to another user, who decides where the agent connects and what it runs"
        return [Topic.HOME.warning(looked_at, text, "set CODEX_HOME to a directory of yours")]
    return [Topic.HOME.ok(looked_at, "is a directory that only its owner may write")]


def _writable(looked_at: str, path: str, mode: int) -> list[Finding]:
    """Whoever may write there can lead the agent elsewhere. A group is often one user alone, so that is no problem."""
    text = "may write there, and so decide where the agent connects and what it runs"
    if mode & 0o002:
        return [Topic.HOME.problem(looked_at, f"every user {text}", f"chmod go-w {path!r}")]
    if mode & 0o020:
        return [Topic.HOME.warning(looked_at, f"its group {text}", f"chmod g-w {path!r}, unless the group is you")]
    return []


def sign_in_findings(sign_in: SignInFacts) -> list[Finding]:
    """Whether somebody is signed in, and how."""
    looked_at = repr(sign_in.path)
    found = []
    if sign_in.others_may_read:
        text = "other users may read it, and it holds credentials"
        found.append(Topic.HOME.warning(looked_at, text, f"chmod 600 {sign_in.path!r}"))
    if sign_in.problem:
        advice = "sign in again, with codex login"
        found.append(Topic.HOME.problem(looked_at, sign_in.problem, advice))
    elif sign_in.mode is None:
        found.append(Topic.HOME.note(looked_at, "nobody is signed in"))
    elif sign_in.mode == "apikey":
        text = (
            "signed in by API key: such requests go to api.openai.com and are not in scope, so they are never stamped"
        )
        found.append(Topic.HOME.warning(looked_at, text, "sign in with ChatGPT, by codex login"))
    else:
        found.append(Topic.HOME.ok(looked_at, "signed in with ChatGPT"))
    return found


def dotenv_findings(facts: DotenvFacts, hosts: Sequence[str], own_port: int) -> list[Finding]:
    """What the file sets against us.

    Args:
        hosts: Those whose traffic is to be stamped.
        own_port: The port that is set for our proxy, 0 if any free one.
    """
    looked_at = repr(facts.path)
    if not facts.exists:
        return [Topic.HOME.ok(looked_at, "is not there, so it overrides nothing")]
    if facts.kind:
        text = f"is {facts.kind}, and codex hangs at start while it reads it"
        return [Topic.HOME.problem(looked_at, text, "move it away")]
    if facts.problem:
        text = f"cannot be read ({facts.problem}); codex starts without it and does not say so"
        return [Topic.HOME.warning(looked_at, text, "make it readable, or remove it")]
    found = _writable(looked_at, facts.path, facts.mode)
    content = facts.content or Dotenv(())
    found += _unread_lines(looked_at, content)
    counting = content.last()
    for variable in counting.values():
        found += _override(f"{looked_at} line {variable.line}: {variable.name}", variable, hosts, own_port)
    for variable in content.variables:
        if variable.is_ignored:
            place = f"{looked_at} line {variable.line}: {variable.name}"
            text = "has no effect: codex takes no CODEX_ variable from this file"
            found.append(Topic.HOME.note(place, text))
    if not found:
        text = f"sets {_variables(len(counting))} for codex, none of which concerns the route or the trust"
        found.append(Topic.HOME.ok(looked_at, text))
    return found


def _variables(number: int) -> str:
    return "one variable" if number == 1 else f"{number} variables"


def _unread_lines(looked_at: str, content: Dotenv) -> list[Finding]:
    found = []
    rest = [line for line in content.passed_over if line not in content.not_text and line != content.unclosed]
    for lines, text in ((content.not_text, "no UTF-8"), (tuple(rest), "no KEY=VALUE that codex understands")):
        if lines:
            place = f"{looked_at} {'line' if len(lines) == 1 else 'lines'} {_numbers(lines)}"
            told = f"{'is' if len(lines) == 1 else 'are'} {text}; passed over without a word"
            found.append(Topic.HOME.warning(place, told, "mend or remove them"))
    if content.unclosed is not None:
        text = "opens a quote that is never closed; codex reads nothing from here to the end of the file"
        place = f"{looked_at} line {content.unclosed}"
        found.append(Topic.HOME.warning(place, text, "close the quote"))
    return found


# So many numbers of lines are listed.
_MOST_NUMBERS = 10


def _numbers(lines: Sequence[int]) -> str:
    more = len(lines) - _MOST_NUMBERS
    return ", ".join(map(str, lines[:_MOST_NUMBERS])) + (f" and {more} more" if more > 0 else "")


def _override(place: str, variable: Variable, hosts: Sequence[str], own_port: int) -> list[Finding]:
    """What one variable of the file means. The parent's environment does not matter: this one wins."""
    name, value = variable.name, variable.value
    if "\0" in value:
        text = "holds a NUL byte, at which codex crashes when it starts"
        return [Topic.HOME.problem(place, text, "remove the line")]
    if name in ("HTTPS_PROXY", "https_proxy"):
        return [_proxy_override(place, name, value, own_port)]
    if name in ("NO_PROXY", "no_proxy"):
        return [_no_proxy_override(place, name, value, hosts)]
    if name.upper() in ("ALL_PROXY", "HTTP_PROXY", "WSS_PROXY", "WS_PROXY", "SOCKS_PROXY"):
        text = "overrides the environment for codex and what it starts; HTTPS_PROXY comes before it for what is stamped"
        return [Topic.HOME.note(place, text)]
    if name in TRUST_FILES or name == "SSL_CERT_DIR":
        text = (
            "overrides the authorities that countersign gives to children: codex itself goes by CODEX_CA_CERTIFICATE, "
            "and the programs that it starts will not trust the proxy"
        )
        return [Topic.HOME.warning(place, text, "remove the line; set it in your shell if you need it")]
    if name.startswith("COUNTERSIGN_"):
        text = "has no effect on countersign, which does not read this file"
        return [Topic.HOME.warning(place, text, "set it in the environment or in config.toml")]
    return []


def _proxy_override(place: str, name: str, value: str, own_port: int) -> Finding:
    address = proxy_address(value)
    if address is not None and address.is_loopback and address.port == own_port != 0:
        text = f"leads to {address.shown}, the port that is set for countersign's own proxy"
        return Topic.HOME.note(place, text)
    if address is not None:
        to = f"with {address.shown}"
    else:
        to = "with something that is no proxy URL (not shown)" if value else "with nothing"
    text = f"overrides the proxy that countersign sets {to}"
    advice = "remove the line; set a proxy in your shell instead, which countersign replaces for its children"
    if name == "HTTPS_PROXY":
        return Topic.HOME.problem(place, f"{text}: codex goes around, unstamped", advice)
    text += "; codex goes by HTTPS_PROXY, and what it starts may go by this one"
    return Topic.HOME.warning(place, text, advice)


def _no_proxy_override(place: str, name: str, value: str, hosts: Sequence[str]) -> Finding:
    around = bypassing(value, hosts)
    if around:
        entries = ", ".join(repr(entry) for entry, _ in around)
        codex_too = name == "NO_PROXY" and any(readers is Bypass.MOST for _, readers in around)
        who = "codex goes" if codex_too else "some clients go"
        text = f"overrides the list that countersign sets: by {entries} {who} around the proxy, unstamped"
        level = Level.PROBLEM if codex_too else Level.WARNING
        return Finding(Topic.HOME, level, place, text, f"take {entries} out, or remove the line")
    lacking = [host for host in LOOPBACK_NAMES if host not in {entry for entry, _ in no_proxy_entries(value)}]
    if lacking:
        text = (
            f"overrides the list that countersign sets, without {', '.join(lacking)}: local servers become unreachable"
        )
        return Topic.HOME.warning(place, text, f"add {','.join(lacking)}, or remove the line")
    return Topic.HOME.note(place, "overrides the list that countersign sets, and excepts nothing stamped")
