"""What several attempts used together. A report within one attempt is cumulative; over attempts
reports add up, since each of them is paid for.
"""

import msgspec

from unbroken.events import Event, MessageEnd, Usage, UsageReport

_COUNTED = tuple(name for name in Usage.__struct_fields__ if name != "source")


class Bill:
    """The usage of the attempts before this one, and what this one has reported."""

    def __init__(self) -> None:
        self.earlier: Usage | None = None
        self._this: Usage | None = None

    def added(self, events: list[Event]) -> list[Event]:
        """The events with usage as the caller should see it: that of all attempts."""
        return [self._one(event) for event in events]

    def this(self, seen: Usage | None) -> Usage | None:
        """What the attempt under way has used, where `seen` is what the caller was told."""
        return seen if self.earlier is None else self._this

    def close(self, usage: Usage | None, *, spoke: bool) -> None:
        """The attempt broke. What came without a report was paid for all the same."""
        self._this = None
        if usage is not None or spoke:
            paid = msgspec.structs.replace(usage or Usage(), source="partial")
            self.earlier = together(self.earlier, paid)

    def _one(self, event: Event) -> Event:
        if not isinstance(event, UsageReport | MessageEnd) or event.usage is None:
            return event
        self._this = event.usage
        return msgspec.structs.replace(event, usage=together(self.earlier, event.usage))


def together(one: Usage | None, other: Usage | None) -> Usage | None:
    """The usage of two attempts; it is partial if either is."""
    if one is None or other is None:
        return one or other
    sums = {name: getattr(one, name) + getattr(other, name) for name in _COUNTED}
    source = one.source if other.source == "reported" else other.source
    return Usage(**sums, source=source)
