"""Google's Gemini API: generateContent (ai.google.dev/api/generate-content)."""

from unbroken.wire.gemini.dialect import CODEC

__all__ = ["CODEC"]
