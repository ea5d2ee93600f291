"""Exchanges survive being written down."""

import json

import pytest

from proxy.attestation import AttestationStatus
from proxy.capture.exchange import Exchange, Phase, Stamp, Transport
from proxy.capture.exchange_json import exchange_as_json, exchange_from_json

FULL = Exchange(
    number=7,
    started_at=1.5,
    transport=Transport.POST,
    host="chatgpt.com",
    port=443,
    method="POST",
    path="/backend-api/codex/responses",
    route="responses",
    stamp=Stamp.STAMPED,
    attestation=AttestationStatus.OK,
    token_bytes=9,
    status=200,
    phase=Phase.ANSWERED,
    request_headers=(("accept", "*/*"),),
)


def test_an_exchange_is_the_same_after_it_was_written_and_read():
    assert exchange_from_json(json.loads(json.dumps(exchange_as_json(FULL)))) == FULL


def test_what_a_later_version_may_add_is_ignored():
    assert exchange_from_json({**exchange_as_json(FULL), "novelty": 1}) == FULL


@pytest.mark.parametrize(
    "wrong", [{"transport": "pigeon"}, {"attestation": 99}, {"request_headers": 5}, {"request_headers": [["a"]]}]
)
def test_what_is_no_exchange_is_refused_without_its_values(wrong):
    with pytest.raises(ValueError, match="not an exchange: ") as caught:
        exchange_from_json({**exchange_as_json(FULL), **wrong})
    assert "pigeon" not in str(caught.value)


def test_what_is_needed_is_missed():
    with pytest.raises(ValueError, match="not an exchange"):
        exchange_from_json({})
