import dataclasses

import pytest

from proxy.attestation import AttestationStatus
from proxy.capture.exchange import Stamp
from tests.proxy.capture.test_coverage import POST, TUNNEL


@pytest.mark.parametrize(
    ("stamp", "status", "is_attested"),
    [
        (Stamp.STAMPED, AttestationStatus.OK, True),
        (Stamp.CARRIED, AttestationStatus.OK, True),
        (Stamp.NATIVE, AttestationStatus.OK, True),
        (Stamp.STAMPED, AttestationStatus.TIMEOUT, False),
        (Stamp.STAMPED, None, False),
        (Stamp.FOREIGN, None, False),
        (Stamp.REFUSED, AttestationStatus.OK, False),
        (Stamp.ABSENT, None, False),
        (Stamp.NOT_SCOPED, None, False),
    ],
)
def test_it_is_attested_only_if_a_token_went_upstream(stamp, status, is_attested):
    assert dataclasses.replace(POST, stamp=stamp, attestation=status).attested == is_attested


def test_its_line_for_the_log_has_one_word_for_each_fact():
    exchange = dataclasses.replace(POST, status=200, waited_s=0.0123)
    assert exchange.log_line() == (
        "exchange number=1 route=responses transport=post host=chatgpt.com method=POST "
        "path=/backend-api/codex/responses status=200 attestation=stamped:OK token_bytes=5 waited_ms=12 error=-"
    )


def test_what_is_not_in_scope_has_no_attestation_in_its_line():
    assert " attestation=- " in TUNNEL.log_line() and " route=- " in TUNNEL.log_line()
