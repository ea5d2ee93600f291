import dataclasses
import json

from hypothesis import given
from hypothesis import strategies as st

from proxy.attestation import AttestationStatus
from proxy.capture.coverage import CoverageCount, CoverageRow
from proxy.capture.exchange import Exchange, Stamp, Transport

POST = Exchange(
    number=1,
    started_at=0.0,
    transport=Transport.POST,
    host="chatgpt.com",
    port=443,
    method="POST",
    path="/backend-api/codex/responses",
    route="responses",
    stamp=Stamp.STAMPED,
    attestation=AttestationStatus.OK,
    token_bytes=5,
)
UNSCOPED = dataclasses.replace(
    POST, transport=Transport.HTTP, route=None, stamp=Stamp.NOT_SCOPED, attestation=None, token_bytes=0
)
REFUSED = dataclasses.replace(UNSCOPED, stamp=Stamp.REFUSED)
TUNNEL = dataclasses.replace(UNSCOPED, transport=Transport.TUNNEL)


def counted(*exchanges):
    count = CoverageCount()
    for exchange in exchanges:
        count.add(exchange)
    return count.coverage()


def outcome(**facts):
    return counted(dataclasses.replace(POST, **facts)).rows[0].outcome


def test_nothing_is_not_complete():
    assert not counted().complete
    assert not counted(TUNNEL, UNSCOPED).complete


def test_it_is_complete_when_every_scoped_request_carried_a_token():
    assert counted(POST, POST, UNSCOPED, TUNNEL).complete


def test_one_request_without_a_token_makes_it_incomplete():
    failed = dataclasses.replace(POST, attestation=AttestationStatus.TIMEOUT, token_bytes=0)
    coverage = counted(POST, failed)
    assert not coverage.complete
    assert (coverage.scoped, coverage.attested) == (2, 1)


def test_an_envelope_that_was_only_observed_counts_as_attested_and_a_foreign_value_does_not():
    assert counted(dataclasses.replace(POST, stamp=Stamp.NATIVE)).complete
    assert not counted(dataclasses.replace(POST, stamp=Stamp.FOREIGN)).complete
    assert not counted(dataclasses.replace(POST, stamp=Stamp.REFUSED)).complete


def test_what_was_refused_before_it_was_matched_is_not_out_of_scope():
    """It might have been anything; "out of scope" says that it was looked at."""
    coverage = counted(REFUSED, UNSCOPED, dataclasses.replace(POST, stamp=Stamp.REFUSED))
    assert (coverage.refused, coverage.out_of_scope, coverage.scoped) == (1, 1, 1)


def test_each_outcome_has_its_word():
    assert outcome() == "ok"
    assert outcome(stamp=Stamp.CARRIED) == "ok"
    assert outcome(attestation=AttestationStatus.TIMEOUT) == "timeout"
    assert outcome(stamp=Stamp.NATIVE) == "native ok"
    assert outcome(stamp=Stamp.NATIVE, attestation=AttestationStatus.FAILED) == "native failed"
    assert outcome(stamp=Stamp.ABSENT, attestation=None) == "absent"
    assert outcome(stamp=Stamp.REFUSED, attestation=None) == "refused"
    assert outcome(stamp=Stamp.FOREIGN, attestation=None) == "foreign"


def test_rows_are_by_route_transport_and_outcome():
    socket = dataclasses.replace(POST, transport=Transport.WEBSOCKET)
    assert counted(POST, socket, POST).rows == (
        CoverageRow("responses", "post", "ok", 2),
        CoverageRow("responses", "websocket", "ok", 1),
    )


exchanges = st.builds(
    dataclasses.replace,
    st.sampled_from([POST, UNSCOPED, REFUSED, TUNNEL]),
    stamp=st.sampled_from(Stamp),
    attestation=st.none() | st.sampled_from(AttestationStatus),
    error=st.none() | st.sampled_from(["no answer", "no address"]),
)


@given(st.lists(exchanges))
def test_every_exchange_is_counted_exactly_once(some):
    coverage = counted(*some)
    failed = sum(one.connections for one in coverage.failed)
    assert coverage.scoped + coverage.out_of_scope + coverage.refused + coverage.tunnels + failed == len(some)
    assert sum(row.requests for row in coverage.rows) == coverage.scoped
    assert coverage.attested <= coverage.scoped


def test_it_can_be_written_as_json():
    assert json.loads(json.dumps(counted(POST).as_json())) == {
        "rows": [{"route": "responses", "transport": "post", "outcome": "ok", "requests": 1}],
        "scoped": 1,
        "attested": 1,
        "out_of_scope": 0,
        "refused": 0,
        "tunnels": 0,
        "failed": [],
        "complete": True,
    }
