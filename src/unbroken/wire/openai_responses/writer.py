"""The streamed answer of OpenAI's Responses API: our events to its own, numbered.

Content stands in items, text in parts of a message; each is announced, grows, and is said once
more as a whole. The last event carries the whole answer.
"""

from typing import Any

import msgspec
from msgspec import Raw

from unbroken.errors import ProviderError
from unbroken.events import (
    ChoiceEnd,
    Citation,
    FinishReason,
    MessageEnd,
    MessageStart,
    OtherEvent,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    Usage,
)
from unbroken.wire.codec import Frame, TableWriter
from unbroken.wire.openai_chat.vocabulary import error_body

_encode = msgspec.json.Encoder().encode

INCOMPLETE: dict[FinishReason, str] = {
    "length": "max_output_tokens",
    "content_filter": "content_filter",
}


def usage_to(usage: Usage) -> dict[str, Any]:
    """The `usage` object of an answer."""
    before = {
        "cached_tokens": usage.cached_input_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
    }
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": before,
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def answer_object(
    id: str, model: str, created: int, *, status: str, output: list[Any], background: bool = False
) -> dict[str, Any]:
    """The response object, with all that the SDKs' type insists on."""
    return {
        "id": id,
        "object": "response",
        "created_at": created,
        "status": status,
        "background": background,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "metadata": {},
        "model": model,
        "output": output,
        "parallel_tool_calls": True,
        "temperature": None,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
        "usage": None,
    }


class ResponsesWriter(TableWriter):
    """Events in, frames out, for one streamed answer of one choice."""

    def __init__(self, created: int, *, background: bool = False) -> None:
        self._created, self._background = created, background
        self._number = -1
        self._id = self._model = ""
        self._items: list[Any] = []
        self._open = -1  # the place of the item that grows, if it is no call
        self._part: dict[str, Any] | None = None  # the part of it that grows
        self._calls: dict[int, int] = {}  # our number to its place
        self._finish: FinishReason = "stop"
        self._write = {
            MessageStart: self._start,
            TextDelta: lambda e: self._say("output_text", "text", e.text),
            RefusalDelta: lambda e: self._say("refusal", "refusal", e.text),
            ReasoningDelta: self._reasoning,
            Citation: self._citation,
            ToolCallStart: self._call,
            ToolCallDelta: self._arguments,
            OtherEvent: self._other,
            ChoiceEnd: self._choice_end,
            MessageEnd: self._end,
        }

    def fail(self, error: ProviderError) -> list[Frame]:
        """The error event, in both of its shapes: the SDKs raise on the nested one alone."""
        inner = error_body(error)["error"]
        return [
            self._frame("error", **{k: v for k, v in inner.items() if k != "type"}, error=inner)
        ]

    def _frame(self, kind: str, **fields: Any) -> Frame:
        self._number += 1
        return Frame(_encode({"type": kind, "sequence_number": self._number, **fields}), event=kind)

    def _answer(self, status: str) -> dict[str, Any]:
        return answer_object(
            self._id,
            self._model,
            self._created,
            status=status,
            output=self._items,
            background=self._background,
        )

    def _start(self, event: MessageStart) -> list[Frame]:
        self._id, self._model = event.id, event.model
        answer = self._answer("in_progress")
        return [
            self._frame("response.created", response=answer),
            self._frame("response.in_progress", response=answer),
        ]

    # Items

    def _item(self, item: dict[str, Any]) -> Frame:
        self._items.append(item)
        return self._frame(
            "response.output_item.added", output_index=len(self._items) - 1, item=item
        )

    def _done(self, at: int) -> Frame:
        self._items[at]["status"] = "completed"
        return self._frame("response.output_item.done", output_index=at, item=self._items[at])

    def _opened(self, kind: str, fields: dict[str, Any]) -> list[Frame]:
        """The item of that kind is the one that grows."""
        if self._open >= 0 and self._items[self._open]["type"] == kind:
            return []
        frames = self._close()
        self._open = len(self._items)
        name = f"{_PREFIX[kind]}_{self._id}_{self._open}"
        return [*frames, self._item({"id": name, "type": kind, "status": "in_progress", **fields})]

    def _close(self) -> list[Frame]:
        if self._open < 0:
            return []
        frames = [*self._close_part(), self._done(self._open)]
        self._open = -1
        return frames

    # Parts of a message

    def _at(self) -> dict[str, Any]:
        item = self._items[self._open]
        last = len(item["content"]) - 1
        return {"item_id": item["id"], "output_index": self._open, "content_index": last}

    def _say(self, kind: str, field: str, text: str) -> list[Frame]:
        if not text:
            return []
        frames = self._opened("message", {"role": "assistant", "content": []})
        if self._part is None or self._part["type"] != kind:
            frames += self._close_part()
            extra: dict[str, Any] = {"annotations": [], "logprobs": []}
            extra = extra if kind == "output_text" else {}
            self._part = {"type": kind, field: "", **extra}
            self._items[self._open]["content"].append(self._part)
            frames.append(self._frame("response.content_part.added", **self._at(), part=self._part))
        self._part[field] += text
        likely: dict[str, Any] = {"logprobs": []} if kind == "output_text" else {}
        grown = self._frame(f"response.{kind}.delta", **self._at(), delta=text, **likely)
        return [*frames, grown]

    def _close_part(self) -> list[Frame]:
        part, self._part = self._part, None
        if part is None:
            return []
        field = "text" if part["type"] == "output_text" else "refusal"
        likely: dict[str, Any] = {"logprobs": []} if field == "text" else {}
        said = {field: part[field], **likely}
        return [
            self._frame(f"response.{part['type']}.done", **self._at(), **said),
            self._frame("response.content_part.done", **self._at(), part=part),
        ]

    def _citation(self, event: Citation) -> list[Frame]:
        if self._part is None or "annotations" not in self._part:
            return []
        self._part["annotations"].append(Raw(event.data.encode()))
        at = len(self._part["annotations"]) - 1
        return [
            self._frame(
                "response.output_text.annotation.added",
                **self._at(),
                annotation_index=at,
                annotation=Raw(event.data.encode()),
            )
        ]

    # The other items

    def _reasoning(self, event: ReasoningDelta) -> list[Frame]:
        frames = self._opened("reasoning", {"summary": []})
        item = self._items[self._open]
        if event.signature:
            item["encrypted_content"] = event.signature
        if not event.text:
            return frames
        at = {"item_id": item["id"], "output_index": self._open, "summary_index": 0}
        if not item["summary"]:
            item["summary"].append({"type": "summary_text", "text": ""})
            part = item["summary"][0]
            frames.append(self._frame("response.reasoning_summary_part.added", **at, part=part))
        item["summary"][0]["text"] += event.text
        grown = self._frame("response.reasoning_summary_text.delta", **at, delta=event.text)
        return [*frames, grown]

    def _call(self, event: ToolCallStart) -> list[Frame]:
        frames = self._close()
        at = self._calls[event.index] = len(self._items)
        call = {"call_id": event.id, "name": event.name, "arguments": ""}
        item = {"id": f"fc_{self._id}_{at}", "type": "function_call", "status": "in_progress"}
        return [*frames, self._item({**item, **call})]

    def _arguments(self, event: ToolCallDelta) -> list[Frame]:
        at = self._calls[event.index]
        self._items[at]["arguments"] += event.arguments
        name = self._items[at]["id"]
        return [
            self._frame(
                "response.function_call_arguments.delta",
                item_id=name,
                output_index=at,
                delta=event.arguments,
            )
        ]

    def _other(self, event: OtherEvent) -> list[Frame]:
        """An item of a kind that we have no word for passes as it came."""
        if event.dialect != "openai-responses" or "." in event.name:
            return []
        frames = self._close()
        self._items.append(Raw(event.data.encode()))
        at = {"output_index": len(self._items) - 1, "item": self._items[-1]}
        return [
            *frames,
            self._frame("response.output_item.added", **at),
            self._frame("response.output_item.done", **at),
        ]

    # The end

    def _choice_end(self, event: ChoiceEnd) -> list[Frame]:
        self._finish = event.finish_reason
        frames = self._close()
        for at in self._calls.values():
            item = self._items[at]
            said = {"item_id": item["id"], "output_index": at, "arguments": item["arguments"]}
            done = self._frame("response.function_call_arguments.done", **said, name=item["name"])
            frames += [done, self._done(at)]
        return frames

    def _end(self, event: MessageEnd) -> list[Frame]:
        cut = INCOMPLETE.get(self._finish)
        answer = self._answer("incomplete" if cut else "completed")
        answer["incomplete_details"] = {"reason": cut} if cut else None
        answer["usage"] = None if event.usage is None else usage_to(event.usage)
        return [self._frame(f"response.{answer['status']}", response=answer)]


_PREFIX = {"message": "msg", "reasoning": "rs"}
