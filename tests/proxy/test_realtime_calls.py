import pytest

from proxy.realtime_calls import LIFETIME_S, MOST_CALLS, RealtimeCalls

LOCATION = "/v1/realtime/calls/rtc_1"


@pytest.fixture
def calls():
    """A call rtc_1, opened at second 0 with the value "envelope"."""
    calls = RealtimeCalls()
    calls.opened(LOCATION, "envelope", 0.0)
    return calls


def test_the_value_of_a_call_is_there_for_its_sideband(calls):
    assert calls.value("rtc_1", 1.0) == "envelope"


def test_there_is_none_for_another_call(calls):
    assert calls.value("rtc_2", 1.0) is None


def test_a_handshake_that_failed_may_be_tried_again_and_one_that_succeeded_not(calls):
    assert calls.value("rtc_1", 1.0) == calls.value("rtc_1", 2.0) == "envelope"
    calls.joined("rtc_1")
    assert calls.value("rtc_1", 3.0) is None


def test_a_value_nobody_came_for_is_dropped_after_a_minute(calls):
    assert calls.value("rtc_1", LIFETIME_S - 0.1) == "envelope"
    assert calls.value("rtc_1", LIFETIME_S) is None
    assert calls.value("rtc_1", 1.0) is None  # really gone, not only hidden


def test_joining_an_unknown_call_does_nothing(calls):
    calls.joined("rtc_2")
    assert calls.value("rtc_1", 1.0) == "envelope"


def test_only_the_latest_calls_are_kept(calls):
    for number in range(MOST_CALLS):
        calls.opened(f"/v1/realtime/calls/more_{number}", "other", 1.0)
    assert calls.value("rtc_1", 2.0) is None
    assert calls.value("more_0", 2.0) == "other"


@pytest.mark.parametrize(
    "location",
    [
        "/v1/realtime/calls/rtc_2",
        "https://api.openai.com/v1/realtime/calls/rtc_2",
        "https://chatgpt.com/v1/realtime/calls/rtc_2",
    ],
)
def test_a_location_names_the_call(location):
    calls = RealtimeCalls()
    calls.opened(location, "envelope", 0.0)
    assert calls.value("rtc_2", 0.0) == "envelope"


@pytest.mark.parametrize(
    "location",
    [
        "",
        "rtc_2",
        "/v1/realtime/calls/",
        "/v1/realtime/calls/rtc_2/",
        "/v1/realtime/calls/rtc_2?x",
        "/v1/realtime/calls/rtc 2",
        "/v1/realtime/calls/rtc_é",
        "/v2/realtime/calls/rtc_2",
        "http://api.openai.com/v1/realtime/calls/rtc_2",
        "/v1/realtime/calls/" + "r" * 201,
        "/v1/realtime/calls/rtc_2\n",
    ],
)
def test_an_odd_location_opens_nothing(location):
    calls = RealtimeCalls()
    calls.opened(location, "envelope", 0.0)
    assert calls.value("rtc_2", 0.0) is None
