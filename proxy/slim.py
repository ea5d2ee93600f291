"""mitmproxy without the parts that this proxy never uses, which are half of its import time.

Importing what we need of mitmproxy 12.2 takes 210 ms here; without QUIC (aioquic and its certificate checks), the
console's command language (pyparsing), the default addons (flask, tornado, ldap3, urwid) and YAML it takes 110 ms;
without DNS and without a look into WebSockets (the `websocket` option is off: their bytes pass) 90 ms.

In the block of `placeholders`, placeholders are where those would be imported. A placeholder has every name that is
asked of it, as a class that cannot be instantiated: whatever reached for QUIC or for a command string would fail
loudly, and nothing here can reach for them (one TCP listener in "regular" mode, options set from Python).

Must be entered before anything of mitmproxy is imported; where mitmproxy is there already, it does nothing.
"""

import contextlib
import importlib.util
import sys
import types
from collections.abc import Iterator
from pathlib import Path

# Whole modules that are never called here. Each is imported by a module that is.
_UNUSED = (
    "aioquic",
    "aioquic.h3",
    "aioquic.h3.connection",
    "aioquic.tls",
    "mitmproxy.command_lexer",
    "mitmproxy.dns",
    "mitmproxy.net.dns",
    "mitmproxy.proxy.layers.dns",
    "mitmproxy.proxy.layers.http._http3",
    "mitmproxy.proxy.layers.quic",
    "mitmproxy.proxy.layers.websocket",
    "pyparsing",
    "ruamel.yaml",
    "wsproto",
    "wsproto.frame_protocol",
    "wsproto.handshake",
)


@contextlib.contextmanager
def placeholders() -> Iterator[None]:
    """Keep the placeholders in place for the imports of the block; those of other libraries are gone after it."""
    if "mitmproxy" in sys.modules:
        yield
        return
    found = importlib.util.find_spec("mitmproxy")
    assert found is not None and found.submodule_search_locations is not None
    addons = types.ModuleType("mitmproxy.addons")
    # A package without its __init__, which would import every default addon; submodules that are named still load.
    addons.__path__ = [str(Path(found.submodule_search_locations[0]) / "addons")]
    sys.modules["mitmproxy.addons"] = addons
    absent = [name for name in _UNUSED if name not in sys.modules]
    for name in absent:
        sys.modules[name] = _Placeholder(name)
        package, _, last = name.rpartition(".")
        if package in absent:
            setattr(sys.modules[package], last, sys.modules[name])
    try:
        yield
    finally:
        for name in absent:
            if not name.startswith("mitmproxy."):
                del sys.modules[name]  # others may have a use for it


class _Placeholder(types.ModuleType):
    """A module that has every public name, as a class nobody can make an instance of."""

    def __init__(self, name: str) -> None:
        super().__init__(name, "Left out by proxy.slim.")
        self.__path__: list[str] = []

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        left_out = type(name, (_LeftOut,), {"__module__": self.__name__})
        setattr(self, name, left_out)
        return left_out


class _LeftOut:
    def __init__(self, *_: object, **__: object) -> None:
        kind = type(self)
        raise RuntimeError(f"{kind.__module__}.{kind.__name__} is left out of this process; see proxy/slim.py")
