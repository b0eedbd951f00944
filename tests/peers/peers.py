"""Other people's Python clients against a gateway: LiteLLM and LangChain, in their own environment.

peers.py URL MODEL      prints one JSON object
"""

import asyncio
import json
import os
import sys
import traceback

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # nothing is fetched

import litellm
from langchain_anthropic import ChatAnthropic
from langchain_openai import ChatOpenAI

URL, MODEL = sys.argv[1:3]
ASK = [{"role": "user", "content": "Tell me about cats."}]
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": "cats", "parameters": CITY}}]
CATS = {"title": "cats", "description": "Where cats are.", **CITY}


def lite(dialect):
    base = f"{URL}/v1" if dialect == "openai" else URL
    common = {"api_key": "k", "api_base": base, "messages": ASK, "max_tokens": 900}
    model = f"{dialect}/{MODEL}"
    usage = {"include_usage": True}
    chunks = list(litellm.completion(model=model, stream=True, stream_options=usage, **common))
    whole = litellm.completion(model=model, **common)
    called = litellm.completion(model=f"{dialect}/{MODEL}", tools=TOOLS, **common)
    call = called.choices[0].message.tool_calls[0].function
    return {
        "text": "".join(c.choices[0].delta.content or "" for c in chunks if c.choices),
        "whole": whole.choices[0].message.content,
        "output": whole.usage.completion_tokens,
        "call": {"name": call.name, "arguments": json.loads(call.arguments)},
    }


async def lite_async():
    answer = await litellm.acompletion(
        model=f"openai/{MODEL}", api_key="k", api_base=f"{URL}/v1", messages=ASK, stream=True
    )
    pieces = [c.choices[0].delta.content or "" async for c in answer if c.choices]
    return {"text": "".join(pieces)}


def chain(make):
    model, tools = make(MODEL), make(MODEL).bind_tools([CATS])
    pieces = list(model.stream("Tell me about cats."))
    whole = model.invoke("Tell me about cats.")
    call = tools.invoke("Tell me about cats.").tool_calls[0]
    return {
        "text": "".join(piece.text for piece in pieces),
        "whole": whole.text,
        "output": whole.usage_metadata["output_tokens"],
        "call": {"name": call["name"], "arguments": call["args"]},
    }


async def chain_async():
    model = ChatOpenAI(model=MODEL, api_key="k", base_url=f"{URL}/v1")
    return {"text": "".join([piece.text async for piece in model.astream("Tell me about cats.")])}


def openai_chain(model):
    return ChatOpenAI(model=model, api_key="k", base_url=f"{URL}/v1", stream_usage=True)


def anthropic_chain(model):
    return ChatAnthropic(model=model, api_key="k", base_url=URL, max_tokens=900)


TRIALS = {
    "litellm_openai": lambda: lite("openai"),
    "litellm_anthropic": lambda: lite("anthropic"),
    "litellm_async": lambda: asyncio.run(lite_async()),
    "langchain_openai": lambda: chain(openai_chain),
    "langchain_anthropic": lambda: chain(anthropic_chain),
    "langchain_async": lambda: asyncio.run(chain_async()),
}


def tried(trial):
    try:
        return trial()
    except Exception:
        return {"error": traceback.format_exc()}


print(json.dumps({name: tried(trial) for name, trial in TRIALS.items()}))
