"""What the two models of a realtime conversation are told of each other. Pure."""

from collections.abc import Sequence

from agent.core.thread import Thread, message
from agent.model.wire import Item

INSTRUCTIONS = """\
You are the voice of a coding agent that runs on the user's computer. You talk with the user; the work itself is done by
a background agent that you hand requests to. To the user you and it are one: say "I", and do not mention the agent.
Be brief, plain and friendly. Hand on whatever needs the files, the shell, or more than a moment's thought, in the
user's own words, and do not refuse or judge it yourself: the agent does that. While it works, hand on corrections and
further wishes at once. Answer yourself what needs no work. Texts that begin with [USER] were typed by the user, texts
that begin with [BACKEND] come from the agent and are true: tell the user in a sentence what matters in them, and read
out code, tables and diffs only when you are asked to."""

STARTED = """\
The user has begun to speak with you through a voice model, which passes requests on to you and tells the user what you
answer. What it passes on is transcribed speech: it may lack punctuation and hold mistakes. It may also come without
need; then answer in a few words. Keep answers short enough to be told."""
ENDED = """\
The spoken conversation is over. From here on the user types to you directly."""

MOST_CONTEXT_CHARACTERS = 8000
MOST_MESSAGE_CHARACTERS = 1000


def note(text: str) -> Item:
    """For the agent, in between."""
    return message("developer", f"<realtime_conversation>\n{text}\n</realtime_conversation>")


def instructions(prompt: str | None, thread: Thread, *, with_context: bool) -> str:
    """For the voice model.

    Args:
        prompt: The client's, in the place of ours; "" for none.
        with_context: Say where the agent works, and what was said last.
    """
    own = INSTRUCTIONS if prompt is None else prompt
    if not with_context:
        return own
    context = f"<startup_context>\nWorking directory: {thread.cwd}\n{_recent(thread.history)}</startup_context>"
    return f"{own}\n\n{context}" if own else context


def _recent(history: Sequence[Item]) -> str:
    """The end of the conversation so far, oldest first."""
    lines: list[str] = []
    room = MOST_CONTEXT_CHARACTERS
    for item in reversed(history):
        if item.get("type") != "message" or item.get("role") not in ("user", "assistant"):
            continue
        content = item.get("content")
        parts = content if isinstance(content, list) else []
        text = " ".join(str(part.get("text", "")) for part in parts if isinstance(part, dict)).strip()
        if not text or text.startswith("<"):  # what was added for the agent
            continue
        line = f"{item['role']}: {text[:MOST_MESSAGE_CHARACTERS]}\n"
        if len(line) > room:
            break
        room -= len(line)
        lines.append(line)
    return "The conversation so far ends with:\n" + "".join(reversed(lines)) if lines else ""


def delegation(prompt: str, transcript: Sequence[tuple[str, str]]) -> str:
    """What the agent is given of the user's: the request, and what was said since the last one (role, text)."""
    said = "\n".join(f"{role}: {text}" for role, text in transcript)
    lines = ["<realtime_delegation>", f"  <input>{_escape(prompt)}</input>"]
    if said:
        lines.append(f"  <transcript_delta>{_escape(said)}</transcript_delta>")
    return "\n".join([*lines, "</realtime_delegation>"])


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
