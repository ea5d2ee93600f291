"""Request heads of the scope, and a predicate over raw bytes that shares no code with the scope."""

import dataclasses
import re

from proxy.scope import RequestHead, Target

RESPONSES = b"/backend-api/codex/responses"

POST = RequestHead(
    connect=Target("chatgpt.com", 443),
    sni="chatgpt.com",
    method=b"POST",
    target=RESPONSES,
    authority=None,
    headers=((b"Host", b"chatgpt.com"), (b"Content-Length", b"2")),
)
UPGRADE_HEADERS = (
    (b"Connection", b"Upgrade"),
    (b"Upgrade", b"websocket"),
    (b"Sec-WebSocket-Version", b"13"),
    (b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ=="),
)
UPGRADE = dataclasses.replace(POST, method=b"GET", headers=((b"Host", b"chatgpt.com"), *UPGRADE_HEADERS))
# In HTTP/2 there is an :authority in place of the Host header.
H2_POST = dataclasses.replace(POST, authority=b"chatgpt.com", headers=((b"content-length", b"2"),))
SIDEBAND = dataclasses.replace(
    UPGRADE,
    connect=Target("api.openai.com", 443),
    sni="api.openai.com",
    target=b"/v1/realtime?intent=quicksilver&call_id=rtc_1",
    headers=((b"Host", b"api.openai.com"), *UPGRADE_HEADERS),
)


def changed(head, **what):
    """The same head with other fields, or (by `header`) with one header replaced, added or removed."""
    if "header" in what:
        name, *values = what.pop("header")
        kept = tuple(pair for pair in head.headers if pair[0].lower() != name.lower())
        what["headers"] = (*kept, *((name, value) for value in values))
    return dataclasses.replace(head, **what)


LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n\x00]*")
POST_LINE = re.compile(
    rb"POST /backend-api/codex/(responses|responses/compact|realtime/calls)(\?[!-\"$-~]*)? HTTP/1\.1"
)
UPGRADE_LINE = re.compile(rb"GET /backend-api/codex/responses(\?[!-\"$-~]*)? HTTP/1\.1")
SIDEBAND_LINE = re.compile(rb"GET /v1/realtime\?[!-\"$-~]* HTTP/1\.1")
SINGLE_HOST = rb"(?i)host:[ \t]*(%s)(:443)?[ \t]*"


def may_carry_a_stamp(raw, connect, sni):
    """The independent check: a list of lines and some patterns over them."""
    start, *lines = raw.removesuffix(b"\r\n\r\n").split(b"\r\n")
    if not all(LINE.fullmatch(line) for line in lines) or connect.port != 443:
        return False
    if connect.host == "chatgpt.com":
        is_post, is_upgrade = bool(POST_LINE.fullmatch(start)), bool(UPGRADE_LINE.fullmatch(start))
    else:
        is_post, is_upgrade = False, connect.host == "api.openai.com" and bool(SIDEBAND_LINE.fullmatch(start))
        is_upgrade = is_upgrade and len(re.findall(rb"[?&]call_id=[A-Za-z0-9_-]+(?=[& ])", start)) == 1

    def named(name):
        return [line for line in lines if line.lower().startswith(name + b":")]

    hosts = named(b"host")
    if len(hosts) != 1 or not re.fullmatch(SINGLE_HOST % re.escape(connect.host.encode()), hosts[0]):
        return False
    if sni is None or sni.lower() != connect.host:
        return False
    if is_post:
        return not any(named(name) for name in (b"upgrade", b"x-http-method-override", b"x-http-method"))
    return (
        is_upgrade
        and [line.split(b":")[1].strip().lower() for line in named(b"upgrade")] == [b"websocket"]
        and [line.split(b":")[1].strip() for line in named(b"sec-websocket-version")] == [b"13"]
        and len(named(b"sec-websocket-key")) == 1
        and not named(b"transfer-encoding")
        and b"close" not in b"".join(named(b"connection")).lower()
    )
