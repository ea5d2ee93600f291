"""Tools that the client answers: questions to the user, and tools of the client's own."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from agent.core.thread import Thread
from agent.core.tooling import CallContext, ToolCall, ToolOutput
from agent.model.wire import Item
from agent.tools.command import BadArguments, arguments

_TEXT = {"type": "string"}
_OPTION = {
    "type": "object",
    "properties": {"label": _TEXT, "description": _TEXT},
    "required": ["label", "description"],
    "additionalProperties": False,
}
_QUESTION = {
    "type": "object",
    "properties": {
        "id": {**_TEXT, "description": "A short name, by which the answer comes back."},
        "header": {**_TEXT, "description": "A title of a few words."},
        "question": {**_TEXT, "description": "The question, one sentence."},
        "options": {"type": "array", "items": _OPTION, "description": "Two or three answers that exclude one another."},
    },
    "required": ["id", "header", "question", "options"],
    "additionalProperties": False,
}
MOST_QUESTIONS = 3


class AskUser:
    """request_user_input: one to three short questions."""

    name = "request_user_input"

    def declared(self, thread: Thread) -> tuple[Item, ...]:
        return (
            {
                "type": "function",
                "name": self.name,
                "description": "Ask the user one to three short questions and wait for the answers.",
                "strict": False,
                "parameters": {
                    "type": "object",
                    "properties": {"questions": {"type": "array", "items": _QUESTION}},
                    "required": ["questions"],
                    "additionalProperties": False,
                },
            },
        )

    def rows(self, thread: Thread) -> dict[str, Callable[[ToolCall, CallContext], Awaitable[ToolOutput]]]:
        return {self.name: self._ask}

    async def forget(self, thread_id: str, session: dict[str, Any]) -> None:
        pass

    async def _ask(self, call: ToolCall, context: CallContext) -> ToolOutput:
        questions = _questions(arguments(call.text))
        params = {
            "threadId": context.thread.id,
            "turnId": context.turn_id,
            "itemId": call.id,
            "questions": questions,
            "isBlocking": False,
            "autoResolutionMs": None,
        }
        with context.waiting("waitingOnUserInput"):
            try:
                answer = await context.ask("item/tool/requestUserInput", params)
            except Exception as exc:
                return ToolOutput(f"the client could not ask the user: {exc}")
        if not isinstance(answer, dict) or not isinstance(answer.get("answers"), dict):
            return ToolOutput("the client's answer to the questions cannot be used; go on without")
        return ToolOutput(json.dumps({"answers": answer["answers"]}, ensure_ascii=False, separators=(",", ":")))


def _questions(given: dict[str, Any]) -> list[dict[str, Any]]:
    questions = given.get("questions")
    if not isinstance(questions, list) or not 1 <= len(questions) <= MOST_QUESTIONS:
        raise BadArguments(f"request_user_input takes 1 to {MOST_QUESTIONS} questions")
    found = []
    for question in questions:
        if not isinstance(question, dict) or not all(
            isinstance(question.get(name), str) for name in ("id", "header", "question")
        ):
            raise BadArguments("each question needs id, header and question")
        options = question.get("options")
        if not isinstance(options, list) or not options or not all(isinstance(one, dict) for one in options):
            raise BadArguments("request_user_input requires non-empty options for every question")
        shown = [
            {"label": str(one.get("label", "")), "description": str(one.get("description", ""))} for one in options
        ]
        found.append(
            {
                "id": question["id"],
                "header": question["header"],
                "question": question["question"],
                "isOther": True,
                "isSecret": False,
                "options": shown,
            }
        )
    return found


class ClientTools:
    """The dynamic tools that a client brought with thread/start; the client carries them out."""

    def declared(self, thread: Thread) -> tuple[Item, ...]:
        return tuple(
            {
                "type": "function",
                "name": tool["name"],
                "description": tool.get("description", ""),
                "strict": False,
                "parameters": tool.get("inputSchema") or {"type": "object", "properties": {}},
            }
            for tool in thread.dynamic_tools
        )

    def rows(self, thread: Thread) -> dict[str, Callable[[ToolCall, CallContext], Awaitable[ToolOutput]]]:
        return dict.fromkeys((tool["name"] for tool in thread.dynamic_tools), self._call)

    async def forget(self, thread_id: str, session: dict[str, Any]) -> None:
        pass

    async def _call(self, call: ToolCall, context: CallContext) -> ToolOutput:
        given = arguments(call.text)
        started = context.now_ms()
        item: dict[str, Any] = {
            "type": "dynamicToolCall",
            "id": call.id,
            "namespace": call.namespace,
            "tool": call.name,
            "arguments": given,
            "status": "inProgress",
            "contentItems": None,
            "success": None,
            "durationMs": None,
            "startedAtMs": started,
            "completedAtMs": None,
        }
        context.item("item/started", item)
        params = {
            "threadId": context.thread.id,
            "turnId": context.turn_id,
            "callId": call.id,
            "namespace": call.namespace,
            "tool": call.name,
            "arguments": given,
        }
        success = False
        try:
            answer = await context.ask("item/tool/call", params)
        except Exception as exc:
            parts = _told(f"dynamic tool request failed: {exc}")
        else:
            if isinstance(answer, dict) and isinstance(answer.get("contentItems"), list):
                parts = [one for one in answer["contentItems"] if isinstance(one, dict)]
                success = answer.get("success") is True
            else:
                parts = _told("dynamic tool response was invalid")
        ended = context.now_ms()
        context.item(
            "item/completed",
            {
                **item,
                "status": "completed" if success else "failed",
                "contentItems": parts,
                "success": success,
                "durationMs": ended - started,
                "completedAtMs": ended,
            },
        )
        return ToolOutput(_content(parts))


def _told(text: str) -> list[dict[str, Any]]:
    """What clients and the model are told instead of an answer."""
    return [{"type": "inputText", "text": text}]


def _content(parts: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """A text where there is nothing but one, as the service takes it; else parts."""
    if len(parts) == 1 and parts[0].get("type") == "inputText":
        return str(parts[0].get("text", ""))
    found: list[dict[str, Any]] = []
    for part in parts:
        if part.get("type") == "inputImage":
            found.append({"type": "input_image", "image_url": str(part.get("imageUrl", ""))})
        else:
            found.append({"type": "input_text", "text": str(part.get("text", ""))})
    return found
