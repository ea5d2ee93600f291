"""In processes of their own: what is loaded cannot be unloaded."""

import subprocess
import sys

import pytest


def python(code):
    """Run this in a fresh interpreter and return what it printed."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True, text=True
    ).stdout


def test_the_default_addons_and_quic_are_not_loaded():
    loaded = python("import proxy.server, sys; print('\\n'.join(sys.modules))").splitlines()
    for name in ("flask", "tornado", "ldap3", "urwid", "aioquic.asyncio", "mitmproxy.addons.onboarding"):
        assert name not in loaded
    assert "mitmproxy.addons.proxyserver" in loaded


@pytest.mark.parametrize(
    "name", ["mitmproxy.proxy.layers.quic.QuicSecretsLogger", "mitmproxy.proxy.layers.websocket.WebsocketLayer"]
)
def test_whoever_reaches_for_what_is_left_out_fails_loudly(name):
    module, _, attribute = name.rpartition(".")
    code = f"""
import proxy.server, importlib
try:
    importlib.import_module({module!r}).{attribute}()
except RuntimeError as exc:
    print(exc)
"""
    assert python(code).startswith(f"{name} is left out of this process")


@pytest.mark.parametrize("name", ["aioquic.tls.CipherSuite", "ruamel.yaml.YAML", "wsproto.frame_protocol.Opcode"])
def test_other_libraries_are_whole_for_others(name):
    module, _, attribute = name.rpartition(".")
    code = f"import proxy.server, importlib; print(importlib.import_module({module!r}).{attribute}.__doc__)"
    assert "left out" not in python(code)
    negative = f"from proxy import slim\nwith slim.placeholders(): import {module} as m; print(m.{attribute}.__mro__)"
    assert "_LeftOut" in python(negative)


def test_a_mitmproxy_that_is_there_already_is_left_whole():
    code = """
import mitmproxy.addons
from proxy import slim
with slim.placeholders():
    import wsproto
    print(mitmproxy.addons.default_addons, wsproto.__file__)
"""
    assert "function default_addons" in python(code)
