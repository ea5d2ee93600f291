"""What is counted, once each, and with labels that tell nothing about anybody."""

import pytest

from proxy.attestation import AttestationStatus
from proxy.capture.exchange import Phase, Stamp, Transport
from proxy.metrics.counts import Metrics
from tests.proxy.metrics.exchanges import exchange, tunnel


def counted(*exchanges):
    """name{labels} -> value, of what is not 0."""
    metrics = Metrics()
    for one in exchanges:
        metrics.changed(one)
    lines = [line for line in metrics.text().decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines) if float(value)}


SCOPED = 'countersign_scoped_requests_total{outcome="%s",route="responses",transport="%s"}'


def test_a_request_counts_once_whatever_phases_it_had():
    phases = [exchange(1, phase, status=None if phase is Phase.DECIDED else 200) for phase in Phase]
    assert counted(*phases)[SCOPED % ("ok", "post")] == 1


def test_a_websocket_counts_when_it_is_open_and_not_again_when_it_is_closed():
    opened = {"transport": Transport.WEBSOCKET, "method": "GET", "status": 101}
    assert counted(exchange(1, Phase.ANSWERED, **opened))[SCOPED % ("ok", "websocket")] == 1
    both = counted(exchange(1, Phase.ANSWERED, **opened), exchange(1, Phase.ENDED, **opened))
    assert both[SCOPED % ("ok", "websocket")] == 1


@pytest.mark.parametrize(
    ("given", "outcome"),
    [
        ({"attestation": AttestationStatus.TIMEOUT}, "timeout"),
        ({"stamp": Stamp.ABSENT, "attestation": None}, "absent"),
        ({"stamp": Stamp.UNSENT, "attestation": None}, "unsent"),
    ],
)
def test_each_outcome_has_its_own_count(given, outcome):
    found = counted(exchange(1), exchange(2, **given))
    assert found[SCOPED % ("ok", "post")] == found[SCOPED % (outcome, "post")] == 1


def test_the_wait_for_a_token_is_a_histogram_around_its_budget():
    found = counted(exchange(1, waited_s=0.03), exchange(2, waited_s=0.1001, attestation=AttestationStatus.TIMEOUT))
    assert found['countersign_token_wait_seconds_bucket{le="0.03",outcome="ok"}'] == 1
    assert 'countersign_token_wait_seconds_bucket{le="0.1",outcome="timeout"}' not in found
    assert found['countersign_token_wait_seconds_bucket{le="0.15",outcome="timeout"}'] == 1


def test_a_post_after_a_refused_websocket_of_the_same_thread_is_a_fallback():
    refused = {"transport": Transport.WEBSOCKET, "method": "GET", "status": 426}
    assert counted(exchange(1, **refused), exchange(2), exchange(3))["countersign_fallbacks_total"] == 1
    assert "countersign_fallbacks_total" not in counted(exchange(1, **refused), exchange(2, thread_id="another"))
    assert "countersign_fallbacks_total" not in counted(exchange(1, **{**refused, "status": 101}), exchange(2))


def test_what_upstream_answers_makes_no_series_without_end():
    odd = [exchange(number, status=status) for number, status in enumerate((500, 600, 777, 999, None))]
    name = 'countersign_failed_requests_total{route="responses",status="%s",transport="post"}'
    found = counted(*odd)
    assert [found[name % status] for status in ("500", "other", "none")] == [1, 3, 1]


def test_the_bytes_of_a_tunnel_count_when_it_is_closed():
    found = counted(tunnel(1, Phase.DECIDED), tunnel(1, request_bytes=5, response_bytes=7))
    assert found['countersign_tunnel_bytes_total{direction="sent"}'] == 5
    assert found['countersign_tunnel_bytes_total{direction="received"}'] == 7


def test_requests_outside_of_the_scope_and_refused_ones_are_counted_apart():
    found = counted(
        exchange(1, route=None, stamp=Stamp.NOT_SCOPED, attestation=None),
        exchange(2, route=None, stamp=Stamp.REFUSED, attestation=None, status=421),
    )
    assert found['countersign_other_requests_total{outcome="out of scope"}'] == 1
    assert found['countersign_other_requests_total{outcome="refused"}'] == 1


def test_no_path_no_host_and_no_thread_is_in_any_label():
    text = repr(counted(exchange(1), exchange(2, status=500), tunnel(3, request_bytes=1)))
    assert not any(word in text for word in ("canary", "backend-api", "chatgpt", "example"))
