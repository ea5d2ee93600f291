"""What a run is to leave behind and to show of itself. Light: each command reads it at its start."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

CAPTURES_VARIABLE = "COUNTERSIGN_CAPTURES"


def captures_directory(home: str, environ: Mapping[str, str]) -> Path:
    """Where captured runs lie.

    Args:
        home: CODEX_HOME.
    """
    given = environ.get(CAPTURES_VARIABLE)
    return Path(given) if given else Path(home) / "countersign" / "captures"


@dataclass(frozen=True, slots=True)
class RecordingOptions:
    """What is wanted.

    Args:
        captures: Where the run is captured; None for not at all.
        elsewhere: That is not where runs are looked for unless told.
        bodies: Capture also bodies and frames.
        live: Show the run on a local page.
        metrics_port: Serve metrics there, 0 for any free port; None for not at all.
        otlp: The URL of an OpenTelemetry collector, or None.
    """

    captures: Path | None = None
    elsewhere: bool = False
    bodies: bool = False
    live: bool = False
    metrics_port: int | None = None
    otlp: str | None = None

    @property
    def wanted(self) -> bool:
        """Whether there is anything to start."""
        return self != RecordingOptions()
