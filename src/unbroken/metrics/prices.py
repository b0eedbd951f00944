"""The cost of an answer, from the price list of the package genai-prices.

The package is an extra (`unbroken[prices]`), imported at first use. Without it, or for a model that
it does not list, the price is None.
"""

from functools import cache, lru_cache
from typing import Any

from unbroken.events import Usage


@lru_cache(maxsize=256)  # an answer is priced several times, and each look-up takes 0.1 ms
def quote(provider: str, model: str, usage: Usage) -> float | None:
    """Return the price in USD, or None if it is not known."""
    prices = _prices()
    if prices is None or not model:
        return None
    counted = prices.Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cached_input_tokens,
        cache_write_tokens=usage.cache_write_tokens,
    )
    try:
        found = prices.calc_price(counted, model_ref=model, provider_id=provider)
    except LookupError:  # the list does not know the provider or the model
        return None
    return float(found.total_price)


def context_window(provider: str, model: str) -> int | None:
    """Return the model's context size in tokens, or None if it is not known."""
    prices = _prices()
    if prices is None:
        return None
    try:
        listed = prices.data_snapshot.get_snapshot()
        _, found = listed.find_provider_model(model, None, provider, None)
    except LookupError:
        return None
    return found.context_window if isinstance(found.context_window, int) else None


def load() -> None:
    """Load the price list now (half a second), for instance in a thread at start."""
    context_window("openai", "")


@cache
def _prices() -> Any:
    try:
        import genai_prices
    except ImportError:
        return None
    return genai_prices
