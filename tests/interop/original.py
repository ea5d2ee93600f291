"""The real, unmodified codex, as its package on PyPI brings it."""

import codex_cli_bin


def codex() -> str:
    """The path of the binary."""
    return str(codex_cli_bin.bundled_codex_path())
