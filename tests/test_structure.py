"""Who may import whom (the house plan, section 3), read from the source: also imports inside functions count."""

import ast
import importlib.metadata
import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("agent", "proxy", "certs")
EVERYTHING = ("agent", "proxy", "certs")

# Module or package -> (what of ours it may import, which third parties). The longest name that fits a module counts,
# and every module has one: a new one gets its row here, or does not belong.
ROWS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "certs": (("certs",), ()),
    "certs.authority": (("certs",), ("cryptography",)),
    "certs.trust": (("certs",), ("certifi",)),
    "proxy": (("proxy", "certs"), ()),
    "proxy.gate": (("proxy",), ("mitmproxy",)),
    "proxy.listener": (("proxy",), ("mitmproxy",)),
    "proxy.stamp": (("proxy",), ("mitmproxy",)),
    "proxy.devicecheck": (("proxy",), ("aiohttp", "jwt")),
    "proxy.token_shape": (("proxy",), ("cbor2",)),
    "proxy.live": (("proxy",), ("aiohttp",)),
    "proxy.metrics": (("proxy.capture", "proxy.metrics"), ()),
    "proxy.metrics.counts": (("proxy.capture", "proxy.metrics"), ("prometheus_client",)),
    "proxy.metrics.server": (("proxy.metrics", "certs.run_directory"), ("aiohttp",)),
    "proxy.metrics.otlp": (("proxy.capture", "proxy.metrics"), ("opentelemetry",)),
    "proxy.capture.bodies": (("proxy",), ("zstandard", "wsproto", "brotli")),
    "proxy.run_authority": (("certs",), ("certifi",)),
    "proxy.server": (("proxy", "certs"), ("mitmproxy", "cryptography")),
    "proxy.standins": (("proxy.standins", "certs"), ("aiohttp", "zstandard", "jwt")),
    "agent.sandbox": (("agent.sandbox",), ()),
    # Of the model only what it says, not how it is reached.
    "agent.core": (
        (
            *("agent.core", "agent.model.wire", "agent.model.realtime_wire", "agent.model.failures"),
            *("agent.model.limits", "agent.model.provider", "agent.sandbox.policy", "agent.features"),
        ),
        ("pydantic",),
    ),
    "agent.model": (("agent.model", "agent.auth"), ()),
    "agent.model.http": (("agent.model", "agent.auth"), ("aiohttp", "zstandard", "httpx_sse")),
    "agent.model.websocket": (("agent.model", "agent.auth"), ("websockets",)),
    "agent.model.realtime": (("agent.model", "agent.auth"), ("websockets",)),
    "agent.tools": (("agent.tools", "agent.sandbox", "agent.core", "agent.model.wire", "agent.features"), ()),
    "agent.rpc": (("agent.rpc",), ()),
    "agent.rpc.listen": (("agent.rpc",), ("websockets",)),
    # Where requests become calls of `core`; the only part of rpc that knows more than the protocol.
    "agent.rpc.methods": (
        (
            *("agent.rpc", "agent.core", "agent.model", "agent.auth", "agent.config", "agent.providers", "agent.home"),
            "agent.unknown_keys",
        ),
        (),
    ),
    "agent.rpc.goal_methods": (("agent.rpc", "agent.core", "agent.model.provider", "agent.features"), ()),
    "agent.rpc.idle_threads": (("agent.rpc", "agent.core"), ()),
    "agent.rpc.permissions": (("agent.rpc", "agent.core", "agent.sandbox"), ()),
    "agent.rpc.thread_params": (("agent.rpc", "agent.core"), ()),
    "agent.rpc.config_methods": (
        ("agent.rpc", "agent.sandbox", "agent.providers", "agent.model.provider", "agent.features"),
        (),
    ),
    "agent.rpc.shown_config": (("agent.features", "agent.unknown_keys"), ()),
    "agent.rpc.command_methods": (("agent.rpc", "agent.sandbox"), ()),
    "agent.rpc.account_limits": (("agent.model.limits",), ()),
    "agent.rpc.login_methods": (("agent.rpc", "agent.model", "agent.auth"), ()),
    "agent.rpc.login_flows": (("agent.rpc", "agent.auth"), ()),
    "agent.rpc.compaction_methods": (("agent.rpc", "agent.core"), ()),
    "agent.rpc.review_methods": (("agent.rpc", "agent.core"), ()),
    "agent.rpc.shell_methods": (("agent.rpc", "agent.core"), ()),
    "agent.rpc.realtime_methods": (("agent.rpc", "agent.core", "agent.model.realtime_wire"), ()),
    "agent.rpc.realtime_params": (("agent.rpc", "agent.model.realtime_wire"), ()),
    "agent.rpc.ws_auth": (("agent.rpc",), ("jwt",)),
    "agent.parts": (EVERYTHING, ()),
    "agent.other_methods": (EVERYTHING, ()),
    "agent.rpc.thread_methods": (("agent.rpc", "agent.core", "agent.model.provider"), ()),
    "agent.rpc.thread_config": (("agent.rpc", "agent.core", "agent.home", "agent.model.provider"), ()),
    "agent.rpc.thread_providers": (("agent.rpc", "agent.home", "agent.providers", "agent.model.provider"), ()),
    "agent.rpc.thread_pages": (("agent.rpc", "agent.core"), ()),
    "agent.attestation": (("agent.rpc", "proxy.attestation"), ()),
    "agent.auth": ((), ()),
    "agent.home": ((), ()),
    "agent.machine": (("agent.rpc.handshake",), ()),
    "agent.notices": (("agent.sandbox",), ()),
    "agent.programs": ((), ()),
    "agent.config": (("agent.core", "agent.features", "agent.home", "agent.providers"), ("pydantic",)),
    "agent.providers": (("agent.model.provider", "proxy.scope"), ()),
    "agent.settings": (("proxy.credentials", "proxy.modes", "proxy.scope", "proxy.upstream"), ()),
    "agent.standins": (("agent.standins", "agent.rpc.jsonrpc"), ("websockets",)),
    "agent.app": (EVERYTHING, ()),
    "agent.standalone": (EVERYTHING, ()),
    "agent.doctor": (EVERYTHING, ("aiohttp", "websockets")),
    "agent.recording": (("proxy", "agent.recording_options"), ()),
    "agent.recording_options": ((), ()),
    "agent.exec_events": ((), ()),
    "agent.loading": ((), ()),
    "agent.features": ((), ()),
    "agent.unknown_keys": (("agent.features",), ()),
    "agent.bypass": (("proxy.capture.proof", "proxy.scope"), ("psutil",)),
    "agent.commands": (EVERYTHING, ("uvloop", "rich")),
    "agent.cli": (EVERYTHING, ()),
    "agent.__main__": (("agent.cli",), ()),
    "agent": ((), ()),
}

# Besides the rows: nobody but the commands looks up to what puts everything together.
TOP = ("agent.app", "agent.standalone", "agent.cli", "agent.commands")
MAY_USE_TOP = ("agent.commands", "agent.cli", "agent.__main__")

# A docstring that says "Pure." promises to use none of these. (ssl is not among them: a context may be passed on.)
IMPURE = {"asyncio", "socket", "subprocess", "select", "threading", "time", "tempfile", "fcntl", "signal"}

NO_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "base", "types", "misc", "shared", "stuff"}
# What the commands share is shared by the commands: there the word says what it is.
NAMED_SO_ON_PURPOSE = {"agent.commands.common"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))}


def within(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def imports(source: str) -> set[str]:
    """Every module that the source imports anywhere, by statement or by a literal `import_module`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module is not None, "imports are absolute"
            # `from proxy import slim` imports a module, `from proxy.scope import Scope` a name of one.
            modules = {f"{node.module}.{alias.name}" for alias in node.names} & set(SOURCES)
            found |= modules or {node.module}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            found |= {argument.value for argument in node.args if isinstance(argument, ast.Constant)}
    return found


def row_of(module: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    fitting = [name for name in ROWS if name != "agent" and within(module, (name,))] or [module]
    return ROWS[max(fitting, key=len)]


def strangers(module: str, source: str) -> list[str]:
    """What a module imports and should not."""
    ours, third_parties = row_of(module)
    found = []
    for name in sorted(imports(source)):
        top = name.split(".")[0]
        if top in ROOMS:
            fine = within(name, ours) and (not within(name, TOP) or within(module, MAY_USE_TOP))
        else:
            fine = top in sys.stdlib_module_names or top in third_parties
        if not fine:
            found.append(name)
    return found


@pytest.mark.parametrize("module", list(SOURCES))
def test_a_module_imports_only_what_its_room_may(module):
    assert strangers(module, SOURCES[module].read_text("utf-8")) == []


@pytest.mark.parametrize(
    ("module", "source", "found"),
    [
        ("proxy.scope", "import agent.rpc.server", ["agent.rpc.server"]),
        ("proxy.scope", "def f():\n    from agent import settings", ["agent.settings"]),
        ("proxy.scope", "import mitmproxy.http", ["mitmproxy.http"]),
        ("proxy.stamp", "import mitmproxy.http", []),
        ("proxy.scope", "import importlib\nimportlib.import_module('agent.cli')", ["agent.cli"]),
        ("agent.core.turn", "if True:\n    import aiohttp", ["aiohttp"]),
        ("agent.core.turn", "from agent.rpc.server import Connections", ["agent.rpc.server"]),
        ("agent.model.http", "import proxy.server", ["proxy.server"]),
        ("agent.model.http", "import aiohttp", []),
        ("agent.rpc.server", "import agent.app", ["agent.app"]),
        ("agent.standalone", "import agent.cli", ["agent.cli"]),
        ("agent.commands.demo", "import agent.app, rich", []),
        ("certs.trust", "import proxy.scope, cryptography", ["cryptography", "proxy.scope"]),
        ("agent.sandbox.plan", "import agent.core.turn", ["agent.core.turn"]),
    ],
)
def test_the_check_itself_finds_what_is_wrong_and_nothing_else(module, source, found):
    assert strangers(module, source) == found


def test_a_relative_import_is_found():
    with pytest.raises(AssertionError, match="absolute"):
        imports("from . import scope")


@pytest.mark.parametrize("module", list(SOURCES))
def test_a_module_that_says_it_is_pure_imports_nothing_that_is_not(module):
    source = SOURCES[module].read_text("utf-8")
    if "Pure." in (ast.get_docstring(ast.parse(source)) or ""):
        assert {name.split(".")[0] for name in imports(source)} & IMPURE == set()


@pytest.mark.parametrize("module", list(SOURCES))
def test_a_module_has_a_name_and_a_docstring_that_say_something(module):
    last = module.rpartition(".")[2]
    assert module in NAMED_SO_ON_PURPOSE or not (last in NO_NAMES or last.endswith(("_utils", "_helpers", "_manager")))
    assert ast.get_docstring(ast.parse(SOURCES[module].read_text("utf-8"))), "what is it for?"


@pytest.mark.parametrize("module", [name for name, path in SOURCES.items() if path.name == "__init__.py"])
def test_a_package_holds_nothing_but_its_docstring(module):
    assert len(ast.parse(SOURCES[module].read_text("utf-8")).body) == 1


@pytest.mark.parametrize("room", ROOMS)
def test_no_other_distribution_provides_packages_of_our_names(room):
    """They are common words; another one on the path would be imported in place of ours, or beside it."""
    providers = importlib.metadata.packages_distributions().get(room, [])
    assert set(providers) <= {"countersign"}
    spec = importlib.util.find_spec(room)
    assert spec is not None and [Path(place) for place in spec.submodule_search_locations or ()] == [ROOT / room]
