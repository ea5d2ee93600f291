import pytest

from agent.rpc.handshake import (
    Capabilities,
    ClientInfo,
    Identity,
    Initialize,
    describe_system,
    describe_terminal,
    initialize_result,
    parse_initialize,
    refusal_of_name,
)
from agent.rpc.jsonrpc import MISSING
from agent.rpc.serde_text import InvalidParams

INFO = {"name": "codex_desktop", "version": "0.1.0"}
DEBIAN = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\nVERSION_ID="12"\n'


def test_the_least_that_a_client_must_say():
    assert parse_initialize({"clientInfo": INFO}) == Initialize(ClientInfo("codex_desktop", "0.1.0"), Capabilities())


def test_a_client_that_says_all():
    params = {
        "clientInfo": {**INFO, "title": "Codex Desktop", "more": 1},
        "capabilities": {
            "experimentalApi": True,
            "requestAttestation": True,
            "optOutNotificationMethods": ["item/started", "item/started", "unknown"],
            "unknown": {},
        },
        "unknown": 5,
    }
    assert parse_initialize(params) == Initialize(
        ClientInfo("codex_desktop", "0.1.0", "Codex Desktop"),
        Capabilities(True, True, frozenset({"item/started", "unknown"})),
    )


@pytest.mark.parametrize("capabilities", [None, {}, {"optOutNotificationMethods": None}])
def test_a_client_that_says_nothing_of_its_capabilities_has_none(capabilities):
    """D4: in particular it cannot attest."""
    assert parse_initialize({"clientInfo": INFO, "capabilities": capabilities}).capabilities == Capabilities()


@pytest.mark.parametrize(
    ("params", "text"),
    [
        (MISSING, "missing field `params`"),
        ({}, "missing field `clientInfo`"),
        ({"capabilities": {}}, "missing field `clientInfo`"),
        (None, "missing field `params`"),
        ([], "invalid length 0, expected struct InitializeParams with 2 elements"),
        ({"clientInfo": "x"}, 'invalid type: string "x", expected struct ClientInfo'),
        ({"clientInfo": {}}, "missing field `name`"),
        ({"clientInfo": {"name": "x"}}, "missing field `version`"),
        ({"clientInfo": {"name": 5, "version": "1"}}, "invalid type: integer `5`, expected a string"),
        ({"clientInfo": {"name": "x", "version": None}}, "invalid type: null, expected a string"),
        ({"clientInfo": {**INFO, "title": 5}}, "invalid type: integer `5`, expected a string"),
        (
            {"clientInfo": INFO, "capabilities": {"requestAttestation": "yes"}},
            'invalid type: string "yes", expected a boolean',
        ),
        (
            {"clientInfo": INFO, "capabilities": {"requestAttestation": None}},
            "invalid type: null, expected a boolean",
        ),
        (
            {"clientInfo": INFO, "capabilities": {"experimentalApi": 1}},
            "invalid type: integer `1`, expected a boolean",
        ),
        (
            {"clientInfo": INFO, "capabilities": {"optOutNotificationMethods": "x"}},
            'invalid type: string "x", expected a sequence',
        ),
        (
            {"clientInfo": INFO, "capabilities": {"optOutNotificationMethods": [5]}},
            "invalid type: integer `5`, expected a string",
        ),
        (
            {"clientInfo": INFO, "capabilities": []},
            "invalid length 0, expected struct InitializeCapabilities with 7 elements",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_the_words_of_serde(params, text):
    with pytest.raises(InvalidParams) as refusal:
        parse_initialize(params)
    assert str(refusal.value) == text


@pytest.mark.parametrize("name", ["codex_desktop", "", "Codex Desktop/1.0 (x)", "café 😀", "tab\there"])
def test_a_name_that_can_be_in_a_header_is_accepted(name):
    assert refusal_of_name(name) is None


@pytest.mark.parametrize("name", ["bad name\n", "a\r\nX-Injected: 1", "nul\x00", "del\x7f", "\x1b[31m", "\n"])
def test_a_name_that_could_not_is_refused_in_the_words_of_the_original(name):
    assert refusal_of_name(name) == f"Invalid clientInfo.name: '{name}'. Must be a valid HTTP header value."


def test_the_answer_names_the_originator_of_the_process_and_this_client():
    identity = Identity("codex_desktop", "Debian 12.0.0; x86_64", "xterm")
    result = initialize_result(identity, ClientInfo("second", "2.0"), "/home/of/codex", "linux")
    assert result == {
        "userAgent": "codex_desktop/0.169.0 (Debian 12.0.0; x86_64) xterm (second; 2.0)",
        "codexHome": "/home/of/codex",
        "platformFamily": "unix",
        "platformOs": "linux",
    }
    assert initialize_result(identity, ClientInfo("a", "1"), "", "darwin")["platformOs"] == "macos"


@pytest.mark.parametrize(
    ("release", "described"),
    [
        (DEBIAN, "Debian 12.0.0; x86_64"),
        ('NAME="Fedora Linux"\nVERSION_ID=41.1\n', "Fedora 41.1.0; x86_64"),
        ('NAME="Ubuntu"\nVERSION_ID="24.04"\n', "Ubuntu 24.4.0; x86_64"),
        ("NAME=Arch\n", "Arch 0.0.0; x86_64"),
        ("", "Unknown 0.0.0; x86_64"),
        ("# nothing\nno equals sign\n", "Unknown 0.0.0; x86_64"),
    ],
)
def test_the_system_is_described_as_the_original_does(release, described):
    assert describe_system(release, "x86_64") == described


@pytest.mark.parametrize(
    ("environ", "described"),
    [
        ({"TERM": "xterm"}, "xterm"),
        ({"TERM_PROGRAM": "iTerm.app", "TERM_PROGRAM_VERSION": "3.5", "TERM": "x"}, "iTerm.app/3.5"),
        ({"TERM_PROGRAM": "vscode"}, "vscode"),
        ({"TERM": "a b\r\nX: 1"}, "a_b__X__1"),
        ({}, "unknown"),
    ],
)
def test_the_terminal_is_described_by_what_can_be_in_a_header(environ, described):
    assert describe_terminal(environ) == described


@pytest.mark.parametrize(
    "name, version, shown",
    [
        ("desk", "1\n2\x00\x7f\xe9\u2603\ty", "desk/0.169.0 (SYS) TERM (desk; 1_2_____y)"),
        ("desk", "\xe9", "desk/0.169.0 (SYS) TERM (desk; \xe9)"),
        ("desk", "a\tb", "desk/0.169.0 (SYS) TERM (desk; a\tb)"),
        ("n\xe9", "1\n", "n\xe9/0.169.0 (SYS) TERM (n\xe9; 1)"),
    ],
)
def test_a_version_that_is_no_header_value_leaves_a_user_agent_that_is(name, version, shown):
    """Each request upstream failed; codex-cli 0.169.0 was seen to answer this."""
    assert Identity(name, "SYS", "TERM").user_agent(ClientInfo(name, version)) == shown
