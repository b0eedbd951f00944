"""Signed reasoning of Claude's in the hands of clients of the Responses API.

Their dialect has one place for reasoning that only the provider understands, `encrypted_content` of
a reasoning item. The block is packed into it, and unpacked when the client sends it back.
"""

import base64
import binascii

import msgspec

from unbroken.messages import MESSAGES, Reasoning

_MARK = "unbroken1."


def pack(part: Reasoning) -> str:
    """The value of `encrypted_content` for a block of signed reasoning."""
    return _MARK + base64.urlsafe_b64encode(msgspec.json.encode(part)).decode()


def unpack(encrypted: str | None) -> Reasoning | None:
    """The block in an `encrypted_content` of ours; None for a provider's own."""
    if not encrypted or not encrypted.startswith(_MARK):
        return None
    try:
        raw = base64.urlsafe_b64decode(encrypted[len(_MARK) :])
        part = msgspec.json.decode(raw, type=Reasoning)
    except (msgspec.DecodeError, binascii.Error, ValueError):
        return None
    return part if part.dialect == MESSAGES else None
