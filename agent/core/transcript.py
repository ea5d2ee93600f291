"""What is said in a realtime conversation, as it is shown to clients and given to the agent. Pure."""

from collections.abc import Callable
from typing import Any

# Characters of one shown segment; speech that v1 never ends goes on in another.
MOST_SEGMENT_CHARACTERS = 64 * 1024
# Characters that are kept for the agent until it is wanted.
MOST_KEPT_CHARACTERS = 64 * 1024

Told = tuple[str, dict[str, Any]]  # a notification: (method, params without the thread)


class Transcript:
    """The open segments (one for each role), and what was said since the agent was last wanted.

    Args:
        new_id: Makes the ids of segments.
    """

    def __init__(self, session_id: str, new_id: Callable[[], str]) -> None:
        self._session_id = session_id
        self._new_id = new_id
        self._open: dict[str, tuple[str, str]] = {}  # role -> (id, text)
        self._said: list[tuple[str, str]] = []

    def delta(self, role: str, text: str) -> list[Told]:
        """More was said."""
        if self._said and self._said[-1][0] == role:
            self._keep(role, self._said.pop()[1] + text)
        else:
            self._keep(role, text)
        return [*self._shown(role, text), ("transcript/delta", {"role": role, "delta": text})]

    def done(self, role: str, whole: str) -> list[Told]:
        """What was said is this as a whole."""
        told: list[Told] = []
        if whole:
            if self._said and self._said[-1][0] == role:
                self._said.pop()
            self._keep(role, whole)
            if not self._open.get(role, ("", ""))[1]:
                told += self._shown(role, whole)
        if role in self._open:
            told += self._completed(role)
        return [*told, ("transcript/done", {"role": role, "text": whole})]

    def complete(self) -> list[Told]:
        """Nothing more comes of the open segments."""
        return [told for role in list(self._open) for told in self._completed(role)]

    def take(self, prompt: str) -> list[tuple[str, str]]:
        """What was said since the last time, with what the agent is to do."""
        taken, self._said = self._said, []
        if not any(entry == ("user", prompt) for entry in taken):
            taken.append(("user", prompt))
        return taken

    def _shown(self, role: str, text: str) -> list[Told]:
        told: list[Told] = []
        if role in self._open and len(self._open[role][1]) >= MOST_SEGMENT_CHARACTERS:
            told += self._completed(role)
        if role not in self._open:
            self._open[role] = (self._new_id(), "")
            told.append(("item/started", {"item": self._item(role)}))
        segment_id, before = self._open[role]
        self._open[role] = (segment_id, before + text)
        return [*told, ("item/transcript/delta", {"itemId": segment_id, "delta": text})]

    def _completed(self, role: str) -> list[Told]:
        """What was shown of it, also where the service has another text in the end (observed)."""
        item = self._item(role)
        del self._open[role]
        return [("item/completed", {"item": item})]

    def _item(self, role: str) -> dict[str, Any]:
        segment_id, text = self._open[role]
        return {
            "id": segment_id,
            "realtimeSessionId": self._session_id,
            "type": "transcriptSegment",
            "role": role,
            "text": text,
        }

    def _keep(self, role: str, text: str) -> None:
        """For the agent; lets go of what was said first."""
        if text:
            self._said.append((role, text[-MOST_KEPT_CHARACTERS:]))
        while sum(len(text) for _, text in self._said) > MOST_KEPT_CHARACTERS:
            self._said.pop(0)
