"""Exchanges for tests of what is counted of them."""

from proxy.attestation import AttestationStatus
from proxy.capture.exchange import Exchange, Phase, Stamp, Transport


def exchange(number=1, phase=Phase.ENDED, **given):
    """A stamped POST of a thread, answered with 200."""
    fields = {
        "started_at": 1.7e9,
        "transport": Transport.POST,
        "host": "chatgpt.com",
        "port": 443,
        "method": "POST",
        "path": "/backend-api/codex/responses/canary-of-a-path",
        "route": "responses",
        "stamp": Stamp.STAMPED,
        "attestation": AttestationStatus.OK,
        "thread_id": "canary-of-a-thread",
        "status": 200,
        "waited_s": 0.03,
        "first_byte_s": 0.4,
        "duration_s": 0.9,
    }
    return Exchange(number=number, phase=phase, **{**fields, **given})


def tunnel(number=1, phase=Phase.ENDED, **given):
    """An untouched tunnel."""
    return exchange(
        number, phase, transport=Transport.TUNNEL, host="example.com", method="CONNECT", path="", route=None,
        stamp=Stamp.NOT_SCOPED, attestation=None, status=None, waited_s=None, first_byte_s=None, **given,
    )  # fmt: skip
