"""The streamed answer of OpenAI's Responses API: our events to its own, numbered.

Content stands in items, text in parts of a message; each is announced, grows, and is sent once
more as a whole. The last event carries the whole answer.
"""

from typing import Any

import msgspec
from msgspec import Raw

from unbroken.errors import ProviderError
from unbroken.events import (
    BlockEnd,
    BlockStart,
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
from unbroken.parts import MESSAGES, RESPONSES, Reasoning
from unbroken.wire.codec import Frame, TableWriter
from unbroken.wire.openai_chat.vocabulary import error_body
from unbroken.wire.signed import pack

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
        self._thought = ("", "", "")  # open reasoning: its text, its signature, what is encrypted
        self._marked: int | None = None  # the latest BlockStart of a call
        self._call_blocks: dict[int, int] = {}  # the number of its block to that of a call
        self._write = {
            MessageStart: self._start,
            BlockStart: self._block_start,
            BlockEnd: self._block_end,
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

    def _block_start(self, event: BlockStart) -> list[Frame]:
        self._marked = event.index if event.kind == "tool_call" else None
        return self._close()

    def _block_end(self, event: BlockEnd) -> list[Frame]:
        """A call is done; reasoning gets what proves it to its provider."""
        call = self._call_blocks.pop(event.index, None)
        if call is not None:
            return self._call_done(call)
        _, signature, encrypted = self._thought
        if self._open >= 0 and self._items[self._open]["type"] == "reasoning":
            if event.dialect == MESSAGES and (signature or encrypted):
                sealed = pack(Reasoning(*self._thought, MESSAGES))
                self._items[self._open]["encrypted_content"] = sealed
            elif event.dialect == RESPONSES and encrypted:
                self._items[self._open]["encrypted_content"] = encrypted
        return self._close()

    def _close(self) -> list[Frame]:
        self._thought = ("", "", "")
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
        fields = {field: part[field], **likely}
        return [
            self._frame(f"response.{part['type']}.done", **self._at(), **fields),
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
        self._thought = (
            self._thought[0] + event.text,
            event.signature or self._thought[1],
            event.encrypted or self._thought[2],
        )
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
        if self._marked is not None:
            self._call_blocks[self._marked], self._marked = event.index, None
        prefix, kind, field = _CUSTOM if event.custom else _FUNCTION
        item = {"id": f"{prefix}_{self._id}_{at}", "type": kind, "status": "in_progress"}
        return [*frames, self._item({**item, "call_id": event.id, "name": event.name, field: ""})]

    def _arguments(self, event: ToolCallDelta) -> list[Frame]:
        at = self._calls[event.index]
        item = self._items[at]
        field = "arguments" if item["type"] == "function_call" else "input"
        item[field] += event.arguments
        place = {"item_id": item["id"], "output_index": at}
        return [self._frame(f"response.{_GROWS[field]}.delta", **place, delta=event.arguments)]

    def _call_done(self, call: int) -> list[Frame]:
        at = self._calls[call]
        item = self._items[at]
        if item["status"] == "completed":
            return []
        field = "arguments" if item["type"] == "function_call" else "input"
        place = {"item_id": item["id"], "output_index": at, field: item[field]}
        done = self._frame(f"response.{_GROWS[field]}.done", **place, name=item["name"])
        return [done, self._done(at)]

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
        return [*frames, *(frame for call in self._calls for frame in self._call_done(call))]

    def _end(self, event: MessageEnd) -> list[Frame]:
        cut = INCOMPLETE.get(self._finish)
        answer = self._answer("incomplete" if cut else "completed")
        answer["incomplete_details"] = {"reason": cut} if cut else None
        answer["usage"] = None if event.usage is None else usage_to(event.usage)
        return [self._frame(f"response.{answer['status']}", response=answer)]


_FUNCTION = ("fc", "function_call", "arguments")
_CUSTOM = ("ctc", "custom_tool_call", "input")
_GROWS = {"arguments": "function_call_arguments", "input": "custom_tool_call_input"}
_PREFIX = {"message": "msg", "reasoning": "rs"}
