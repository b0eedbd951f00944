"""A conversation, for callers that await."""

import weakref
from typing import Unpack

from msgspec import Struct

from unbroken.client._async import AsyncClient, AsyncStream, _Driver
from unbroken.client._plan import Models, Parameters
from unbroken.client.history import Count, History, Said, estimate
from unbroken.errors import LocalProtocolError
from unbroken.messages import Message, Text, ToolResult
from unbroken.response import Response


class AsyncConversation:
    """Questions that know what was said before.

    `budget` bounds, in tokens, what is sent along: the oldest turns go first and whole, the system
    message and the newest turn stay. None: nothing is forgotten. `count` is a tokenizer, text in
    and tokens out; without one a text is a token for every four bytes. What providers report of
    earlier prompts and answers is believed more than either. `system` is the system message; all
    other `parameters` are those of every question, unless a question has its own.

    A turn is kept when its answer is complete. An answer that was cut, cancelled or failed leaves
    nothing, and its question goes with it, so that it can be asked again; with `keep_partial` the
    question and the text that came are kept. One question at a time.
    """

    def __init__(
        self,
        client: AsyncClient,
        model: Models = None,
        *,
        budget: int | None = None,
        count: Count = estimate,
        keep_partial: bool = False,
        **parameters: Unpack[Parameters],
    ) -> None:
        self.model = model
        self.keep_partial = keep_partial
        system = parameters.pop("system", None)
        self._client, self._parameters = client, parameters
        self._history = History(budget=budget, count=count).instructed(system)
        self._asked: _Asked | None = None

    @property
    def messages(self) -> tuple[Message, ...]:
        """What is kept, oldest first, the system message at its head."""
        return self._settled().messages

    @property
    def tokens(self) -> int:
        """What `messages` take: as reported where that is known, else by estimate."""
        return self._settled().tokens

    @property
    def forgotten(self) -> int:
        """How many messages did not fit, with the newest question in mind."""
        history = self._settled()
        return history.forgotten if self._asked is None else self._asked.history.forgotten

    @property
    def system(self) -> str:
        """The system message; it can be set, and `None` or an empty text removes it."""
        message = self._settled().system
        return "" if message is None else message.text

    @system.setter
    def system(self, text: str | None) -> None:
        self._history = self._settled().instructed(text)

    def add(self, *said: Said | ToolResult) -> None:
        """Say something without asking: results of tools, or what was said elsewhere."""
        history = self._closed()
        for one in said:
            history = history.plus(one)
        self._history = history

    def clear(self) -> None:
        """Forget everything but the system message."""
        self._history = self._closed().forgetting()

    def stream(
        self, prompt: str | Said | None = None, **parameters: Unpack[Parameters]
    ) -> AsyncStream:
        """Ask, and get the answer as it comes. Without a prompt: go on from what was added.

        Raises ContextTooLong if the newest turn alone is more than the budget.
        """
        history = self._question(prompt)
        given = _merged(self._parameters, parameters)
        stream = self._client.stream(self.model, history.messages, **given)
        self._asked = _Asked(history, stream._driver, weakref.ref(stream))
        return stream

    async def complete(
        self, prompt: str | Said | None = None, **parameters: Unpack[Parameters]
    ) -> Response:
        """Ask, and get the whole answer."""
        async with self.stream(prompt, **parameters) as stream:
            async for _ in stream.batches():
                pass
        return stream.response

    def _question(self, prompt: str | Said | None) -> History:
        history = self._closed()
        if isinstance(prompt, str):
            history = history.plus(Message("user", (Text(prompt),)))
        elif prompt is not None:
            history = history.plus(prompt)
        return history.asking()

    def _closed(self) -> History:
        """The history, now that nothing is coming any more."""
        history = self._settled()
        if self._asked is not None:
            raise LocalProtocolError(
                "the answer before is still coming: read it to its end, or close its stream"
            )
        return history

    def _settled(self) -> History:
        """The history with the latest answer, if that has ended."""
        asked = self._asked
        if asked is not None and asked.ended:
            self._asked = None
            found = asked.history.answered(asked.response, keep_partial=self.keep_partial)
            self._history = found or self._history
        return self._history


class _Asked(Struct, frozen=True):
    """A question and its answer. The stream itself is not held: one that nobody holds any more is
    gone at once, and its connection with it.
    """

    history: History
    driver: _Driver
    stream: weakref.ref[AsyncStream]

    @property
    def response(self) -> Response:
        return self.driver.delivery.response

    @property
    def ended(self) -> bool:
        return self.stream() is None or self.response.end is not None


def _merged(general: Parameters, own: Parameters) -> Parameters:
    return {**general, **own}
