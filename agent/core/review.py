"""A review: what the reviewer is told, what clients see of its work, and what its findings read like. Pure.

The reviewer is a thread of its own that clients never hear of: what it does is told as part of a turn of the thread
that is reviewed (observed).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.core.thread import Subagent, Thread
from agent.model.wire import Item, json_of

INSTRUCTIONS = """\
You review code changes that somebody else made, inside Countersign, on the user's computer. Read the changes and as
much around them as you need; change nothing. Report only what the author would want to fix: a defect that these
changes bring in, that you can show, and that matters. Say where it is as narrowly as you can, and when it happens. If
there is nothing of the kind, report nothing.

Your last message is one JSON object without anything around it:
{"findings": [{"title": "<at most 80 characters, begins with [P0] to [P3]>", "body": "<why it is a defect>",
"confidence_score": <0.0 to 1.0>, "priority": <0 to 3>, "code_location": {"absolute_file_path": "<path>",
"line_range": {"start": <first line>, "end": <last line>}}}], "overall_correctness": "patch is correct" or
"patch is incorrect", "overall_explanation": "<one to three sentences>", "overall_confidence_score": <0.0 to 1.0>}"""

NO_ANSWER = "Reviewer failed to output a response."

# What clients are not told of the reviewer's work (observed): the turn that it is part of says it in its own words.
_KEPT_BACK = frozenset(
    {
        "item/agentMessage/delta",
        "thread/tokenUsage/updated",
        "thread/readState/changed",
        "account/rateLimits/updated",
        "turn/completed",
    }
)


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be reviewed.

    Args:
        hint: For people.
        prompt: For the reviewer.
    """

    hint: str
    prompt: str


def target_of(target: Mapping[str, Any]) -> Target | None:
    """The target that a client names, checked for its members; None if it says nothing."""
    match target:
        case {"type": "uncommittedChanges"}:
            changes = "the current code changes (staged, unstaged, and untracked files)"
            return Target("current changes", f"Review {changes} and provide prioritized findings.")
        case {"type": "baseBranch", "branch": str(branch)} if branch.strip():
            changes = f"the changes of this branch against the base branch '{branch}'"
            how = f"Take the diff from `git merge-base HEAD {branch}` on, so that only what this branch brings counts."
            return Target(f"changes against '{branch}'", f"Review {changes} and provide prioritized findings. {how}")
        case {"type": "commit", "sha": str(sha)} if sha.strip():
            title = target.get("title")
            named = f'{sha} ("{title}")' if title else sha
            hint = f"commit {sha[:7]}: {title}" if title else f"commit {sha[:7]}"
            return Target(hint, f"Review the changes that commit {named} brings and provide prioritized findings.")
        case {"type": "custom", "instructions": str(instructions)} if instructions.strip():
            return Target(instructions.strip(), instructions.strip())
        case _:
            return None


def reviewer_of(thread: Thread, reviewer_id: str, turn_id: str) -> Thread:
    """The thread that reviews in this turn of `thread`. Nobody is asked to approve what it does."""
    return Thread(
        id=reviewer_id,
        cwd=thread.cwd,
        model=thread.model,
        originator=thread.originator,
        approval_policy="never",
        sandbox=thread.sandbox,
        profile=thread.profile,
        created_at=thread.created_at,
        cli_version=thread.cli_version,
        base_instructions=INSTRUCTIONS,
        effort=thread.effort,
        summary=thread.summary,
        verbosity=thread.verbosity,
        service_tier=thread.service_tier,
        ephemeral=True,
        model_provider=thread.model_provider,
        provider=thread.provider,
        config=thread.config,
        parent=thread.id,
        subagent=Subagent("review", turn_id),
    )


@dataclass(frozen=True, slots=True)
class Relay:
    """What the clients of a thread see of a reviewer's work."""

    thread_id: str
    turn_id: str

    def told(self, method: str, params: Mapping[str, Any]) -> dict[str, Any] | None:
        """The params that clients get of a notification of the reviewer; None if it is kept back."""
        if method in _KEPT_BACK:
            return None
        if method == "item/completed" and params["item"]["type"] == "agentMessage":
            return None
        if method == "thread/status/changed" and params["status"]["type"] != "active":
            return None
        if method == "error" and not params["willRetry"]:
            return None
        return self.renamed(params)

    def renamed(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The params with the thread and the turn that clients know."""
        known = {"threadId": self.thread_id, "turnId": self.turn_id}
        renamed = {name: known.get(name, value) for name, value in params.items()}
        if "turn" in renamed:
            renamed["turn"] = {**renamed["turn"], "rootTurnId": self.turn_id}
        return renamed

    def mode(self, kind: str, item_id: str, review: str, now_ms: int) -> list[tuple[str, dict[str, Any]]]:
        """The item "enteredReviewMode" or "exitedReviewMode", begun and completed at once."""
        item = {"type": kind, "id": item_id, "review": review, "startedAtMs": now_ms, "completedAtMs": None}
        about = {"threadId": self.thread_id, "turnId": self.turn_id}
        completed = {"item": {**item, "completedAtMs": now_ms}, **about}
        return [
            ("item/started", {"item": item, **about, "startedAtMs": now_ms}),
            ("item/completed", {**completed, "contentTokenCount": None, "completedAtMs": now_ms}),
        ]


def review_request(target: Target) -> str:
    """What the thread's own model is told of a review, before its findings."""
    return f"<review>\nThe user had a review made ({target.hint}). What it found is the next message.\n</review>"


def findings_text(answer: str | None) -> str:
    """What people read of a reviewer's last message; the message itself where it is not what was asked for."""
    if answer is None or not answer.strip():
        return NO_ANSWER
    try:
        content = json_of(answer[answer.index("{") : answer.rindex("}") + 1])
        explanation = str(content.get("overall_explanation") or "").strip()
        findings = [_finding(one) for one in content.get("findings") or []]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return answer.strip()
    if not findings:
        return explanation or answer.strip()
    heading = "Review comment:" if len(findings) == 1 else "Full review comments:"
    return "\n\n".join([*([explanation] if explanation else []), heading, *findings])


def _finding(finding: Item) -> str:
    place = finding["code_location"]
    lines = place["line_range"]
    body = "\n".join(f"  {line}" for line in str(finding["body"]).splitlines())
    return f"- {finding['title']} — {place['absolute_file_path']}:{lines['start']}-{lines['end']}\n{body}"
