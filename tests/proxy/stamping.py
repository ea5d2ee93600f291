"""What the tests of the stamp share."""

import pytest

from tests.proxy.wire import post, upgrade

FORGED = 'x-oai-attestation: {"v":1,"s":0,"t":"forged"}'
OK_1 = '{"v":1,"s":0,"t":"token-1"}'
TIMEOUT = '{"v":1,"s":1}'
SOON_S = 0.05

posted_and_upgraded = pytest.mark.parametrize("request_with", [post, upgrade])
