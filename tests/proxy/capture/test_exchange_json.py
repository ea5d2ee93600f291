"""Exchanges survive being written down."""

import dataclasses
import json

import pytest

from proxy.capture.exchange import Phase, SocketTurn
from proxy.capture.exchange_json import exchange_as_json, exchange_from_json
from tests.proxy.capture.test_coverage import POST

FULL = dataclasses.replace(
    POST,
    number=7,
    started_at=1.5,
    status=200,
    phase=Phase.ANSWERED,
    request_headers=(("accept", "*/*"),),
    turns=(SocketTurn(1, 2.0, 3.0, 4.5, 3.5, 4.0), SocketTurn(2, 9.0)),
)


def test_an_exchange_is_the_same_after_it_was_written_and_read():
    assert exchange_from_json(json.loads(json.dumps(exchange_as_json(FULL)))) == FULL


def test_what_a_later_version_may_add_is_ignored():
    assert exchange_from_json({**exchange_as_json(FULL), "novelty": 1}) == FULL


@pytest.mark.parametrize(
    "wrong",
    [
        {"transport": "pigeon"}, {"attestation": 99}, {"request_headers": 5}, {"request_headers": [["a"]]},
        {"turns": 5}, {"turns": [5]}, {"turns": [{}]}, {"turns": [{"number": 1, "asked_s": "pigeon"}]},
        {"turns": [{"number": 1, "asked_s": float("nan")}]}, {"turns": [{"number": 1, "asked_s": None}]},
    ],
)  # fmt: skip
def test_what_is_no_exchange_is_refused_without_its_values(wrong):
    with pytest.raises(ValueError, match="not an exchange: ") as caught:
        exchange_from_json({**exchange_as_json(FULL), **wrong})
    assert "pigeon" not in str(caught.value)


def test_what_is_needed_is_missed():
    with pytest.raises(ValueError, match="not an exchange"):
        exchange_from_json({})
