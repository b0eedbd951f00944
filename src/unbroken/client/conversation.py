"""Talking with a memory: `Conversation` over a `Client`, `AsyncConversation` over an `AsyncClient`.

    chat = Conversation(client, "openai/gpt-6-luna", system="Be brief.", budget=8000)
    with chat.stream("Hello!") as stream:
        for piece in stream.text:
            ...

What is remembered, and what is forgotten when, is in `history.py`.
"""

from unbroken.client._conversation_async import AsyncConversation
from unbroken.client._conversation_sync import Conversation
from unbroken.client.history import History, Turn, estimate

__all__ = ["AsyncConversation", "Conversation", "History", "Turn", "estimate"]
