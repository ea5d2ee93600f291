"""R12: whatever is stamped satisfies a predicate that reads the raw bytes anew, with none of the scope's own code."""

import pytest
from hypothesis import example, find, given, settings
from hypothesis import strategies as st

from proxy.scope import Covered, Refused, RequestHead, Scope, Target
from tests.proxy.heads import POST, SIDEBAND, UPGRADE, changed, may_carry_a_stamp

SCOPE = Scope.of()


def wire(head):
    """The head as it would stand on an HTTP/1 connection to the upstream."""
    lines = [b"%s %s HTTP/1.1" % (head.method, head.target), *(name + b": " + value for name, value in head.headers)]
    return b"\r\n".join(lines) + b"\r\n\r\n"


NAMES = [
    b"Host", b"host", b"Connection", b"Upgrade", b"Sec-WebSocket-Key", b"Sec-WebSocket-Version", b"Content-Length",
    b"Transfer-Encoding", b"X-HTTP-Method-Override", b"x-oai-attestation", b"Accept",
]  # fmt: skip
VALUES = [
    b"chatgpt.com", b"chatgpt.com:443", b"CHATGPT.com", b"api.openai.com", b"evil.example", b"chatgpt.com.", b"Upgrade",
    b"keep-alive, Upgrade", b"close, Upgrade", b"websocket", b"h2c", b"13", b"12", b"0", b"5", b"chunked", b"GET",
    b"dGhlIHNhbXBsZSBub25jZQ==", b"a\r\n b", b"a\rHost: evil.example", b"a\x00",
]  # fmt: skip
PATHS = [
    b"/backend-api/codex/responses", b"/backend-api/codex/responses/compact", b"/backend-api/codex/realtime/calls",
    b"/v1/realtime?call_id=rtc_1", b"/v1/realtime?call_id=a&call_id=b", b"/backend-api/codex/responses/",
    b"/backend-api/codex/%72esponses", b"//backend-api/codex/responses", b"/backend-api/codex/responses;p",
]  # fmt: skip

headers = st.tuples(
    st.sampled_from(NAMES) | st.binary(min_size=1, max_size=8), st.sampled_from(VALUES) | st.binary(max_size=12)
)
targets = st.builds(
    lambda path, tail: path + tail,
    st.sampled_from(PATHS) | st.binary(max_size=20),
    st.sampled_from([b"", b"?x=1", b"#x", b" HTTP/1.1\r\nHost: evil.example"]) | st.binary(max_size=6),
)


@st.composite
def heads(draw):
    """A good head of the scope with a few things changed, or nothing."""
    head = draw(st.sampled_from([POST, UPGRADE, SIDEBAND]))
    changes = {}
    if draw(st.booleans()):
        changes["target"] = draw(targets)
    if draw(st.integers(0, 3)) == 0:
        changes["method"] = draw(st.sampled_from([b"POST", b"GET", b"PUT", b"post"]) | st.binary(max_size=6))
    if draw(st.integers(0, 3)) == 0:
        changes["sni"] = draw(st.sampled_from([None, "chatgpt.com", "CHATGPT.COM", "api.openai.com", "evil.example"]))
    if draw(st.integers(0, 3)) == 0:
        changes["connect"] = Target(
            draw(st.sampled_from(["chatgpt.com", "api.openai.com", "evil.example"])), draw(st.sampled_from([443, 80]))
        )
    pairs = list(head.headers)
    for _ in range(draw(st.integers(0, 3))):
        position = draw(st.integers(0, len(pairs)))
        if draw(st.booleans()):
            pairs.insert(position, draw(headers))
        elif pairs:
            del pairs[position % len(pairs)]
    return changed(head, headers=tuple(pairs), **changes)


@settings(max_examples=600)
@given(head=heads())
@example(head=changed(POST, header=(b"X", b"a\r\n x-oai-attestation: forged")))
@example(head=changed(UPGRADE, header=(b"Host", b"chatgpt.com", b"evil.example")))
def test_whatever_is_stamped_reads_as_a_scoped_request_in_its_raw_bytes(head):
    if isinstance(SCOPE.decide(head), Covered):
        assert may_carry_a_stamp(wire(head), head.connect, head.sni)


@settings(max_examples=300)
@given(head=heads())
def test_a_decision_is_always_made(head):
    decision = SCOPE.decide(head)
    assert not isinstance(decision, Refused) or 400 <= decision.status < 500


@pytest.mark.parametrize("start", [POST, UPGRADE, SIDEBAND])
def test_the_property_is_not_empty_since_the_strategy_finds_stamped_heads(start):
    assert isinstance(SCOPE.decide(start), Covered) and may_carry_a_stamp(wire(start), start.connect, start.sni)
    found = find(heads(), lambda head: isinstance(SCOPE.decide(head), Covered) and head.method == start.method)
    assert isinstance(found, RequestHead)


@pytest.mark.parametrize(
    "change",
    [
        {"sni": "evil.example"},
        {"method": b"PUT"},
        {"target": b"/backend-api/codex/responses/"},
        {"connect": Target("evil.example", 443)},
        {"header": (b"Host", b"chatgpt.com", b"chatgpt.com")},
        {"header": (b"Host", b"evil.example")},
        {"header": (b"X", b"a\r\n b")},
    ],
)
def test_the_predicate_itself_can_say_no(change):
    head = changed(POST, **change)
    assert not may_carry_a_stamp(wire(head), head.connect, head.sni)
