"""`countersign proxy`: the proxy by itself, for an agent that somebody else starts."""

import json
import logging
import os
import shlex
import sys
from collections.abc import Sequence

from agent.commands.common import (
    CommandFailed,
    OutputFile,
    Parser,
    fail,
    read_settings,
    run,
    start_logging,
    stop_signals,
)
from agent.recording import RecordingUnavailable, recording
from agent.recording_options import RecordingOptions
from agent.sandbox.open_files import allow_more
from agent.settings import ProxySettings

logger = logging.getLogger(__name__)


def main(argv: Sequence[str], overrides: Sequence[str]) -> int:
    parser = Parser(
        "proxy",
        "Run the stamping proxy on loopback, with a socket for the desktop that makes the tokens. What an agent needs "
        "is printed once the proxy listens, as shell exports or as JSON. Ends with SIGINT, SIGTERM or SIGHUP.",
    )
    parser.add_proxy_options()
    parser.add_recording_options(capture=True)
    parser.set_defaults(verbose=1)  # a line for each request; -v counts from there
    parser.add_argument("--json", action="store_true", help="print one line of JSON instead of shell exports")
    parser.add_argument("--report", metavar="FILE", help="write the coverage as JSON there at the end")
    arguments = parser.parse_args(argv)
    start_logging(arguments.verbose)
    try:
        settings, home, _ = read_settings(arguments, overrides)
        options = parser.recording_options(arguments, home)
        report = None if arguments.report is None else OutputFile(arguments.report, "the report")
    except CommandFailed as exc:
        return fail("proxy", exc)
    allow_more()
    return run("proxy", _serve(settings, options, home, as_json=arguments.json, report=report))


async def _serve(
    settings: ProxySettings, options: RecordingOptions, home: str, *, as_json: bool, report: OutputFile | None
) -> int:
    from agent.commands.report import print_coverage, write_coverage
    from agent.rpc.listen import SocketUnavailable
    from agent.standalone import standalone
    from proxy.capture.coverage import CoverageCount
    from proxy.capture.exchange import Exchange
    from proxy.server import ProxyUnavailable

    count = CoverageCount()

    def over(exchange: Exchange) -> None:
        count.add(exchange)
        logger.info("%s", exchange.log_line())

    try:
        async with (
            stop_signals() as stop,
            recording(options, "proxy") as record,
            standalone(settings, "countersign proxy", home, over, record.observation) as running,
        ):
            record.announce("proxy", sys.stderr)
            proxy = running.proxy
            environment = proxy.child_environment(os.environ)
            if as_json:
                facts = {
                    "port": proxy.port,
                    "https_proxy": proxy.url,
                    "ca_file": str(proxy.ca_file),
                    "bundle_file": str(proxy.bundle_file),
                    "rpc": f"unix://{running.rpc}",
                    "live": record.page,
                    "metrics": record.metrics_url,
                    "metrics_token_file": record.metrics_token_file,
                    "capture": None if record.run is None else str(record.run.path),
                    "env": environment,
                }
                print(json.dumps(facts), flush=True)
            else:
                lines = [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
                # No export: COUNTERSIGN_RPC says where to listen, also to the next `countersign` of that shell.
                address = shlex.quote(f"unix://{running.rpc}")
                lines.append(f"# desktop: countersign standin desktop --connect {address}")
                print("\n".join(lines), flush=True)
            await stop.wait()
    except ProxyUnavailable as exc:
        raise CommandFailed(str(exc)) from exc
    except SocketUnavailable as exc:
        raise CommandFailed(settings.blamed("rpc", exc)) from exc
    except RecordingUnavailable as exc:
        raise CommandFailed(str(exc)) from exc
    print_coverage(count.coverage(), sys.stderr)
    record.conclude("proxy", sys.stderr)
    if report is not None:
        write_coverage(count.coverage(), report)
    return 0
