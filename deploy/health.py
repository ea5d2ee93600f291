"""A container's health check: whether a URL on its loopback answers with 200.

health.py URL [--ca FILE] [--token FILE]
"""

import argparse
import ssl
import sys
import urllib.request
from pathlib import Path

TIMEOUT_S = 3.0


def main(argv: list[str]) -> int:
    """0 if it does, 1 if not."""
    parser = argparse.ArgumentParser(prog="health.py", allow_abbrev=False)
    parser.add_argument("url")
    parser.add_argument("--ca", metavar="FILE", help="the authority to trust")
    parser.add_argument("--token", type=Path, metavar="FILE", help="a file with a bearer token")
    arguments = parser.parse_args(argv)
    try:
        request = urllib.request.Request(arguments.url)
        if arguments.token is not None:
            request.add_header("Authorization", f"Bearer {arguments.token.read_text()}")
        # Whatever the environment says of proxies is for others.
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
        if arguments.ca is not None:
            handlers.append(urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=arguments.ca)))
        with urllib.request.build_opener(*handlers).open(request, timeout=TIMEOUT_S) as response:
            return 0 if response.status == 200 else 1
    except (OSError, ValueError) as exc:
        sys.stderr.write(f"health.py: {arguments.url}: {exc}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
