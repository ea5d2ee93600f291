"""The bubblewrap that tests start by themselves: the system's, or where there is none the one that came with us."""

import shutil

from agent.sandbox.discovery import bundled

BWRAP = shutil.which("bwrap") or bundled() or "bwrap"
