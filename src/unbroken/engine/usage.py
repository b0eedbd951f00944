"""The usage of one answer over all its attempts.

A report within one attempt is cumulative; over attempts reports add up, since each is paid for.
"""

import msgspec

from unbroken.events import Event, MessageEnd, Usage, UsageReport

_COUNTED = tuple(name for name in Usage.__struct_fields__ if name != "source")


class UsageLedger:
    """The usage of the attempts before the current one, and what the current one has reported."""

    def __init__(self) -> None:
        self.current: Usage | None = None
        self._earlier: Usage | None = None
        self._unreported = False  # an attempt brought content, and no report

    @property
    def total(self) -> Usage | None:
        """The usage of all attempts together, as far as it was reported."""
        total = add_usage(self._earlier, self.current)
        return _partial(total) if self._unreported else total

    def read(self, events: list[Event]) -> list[Event]:
        """Take the reports among the events; return the events with the totals in them."""
        if _REPORTS.isdisjoint(map(type, events)):
            return events
        return [self._with_total(event) for event in events]

    def finish(self, *, complete: bool, had_content: bool) -> None:
        """End the current attempt. What it did not report was paid for all the same."""
        usage, self.current = self.current, None
        self._unreported = self._unreported or (usage is None and had_content)
        self._earlier = add_usage(self._earlier, usage if complete else _partial(usage))

    def absorb(self, other: "UsageLedger") -> None:
        """Add what another delivery of the same answer used."""
        self._unreported = self._unreported or other._unreported
        self._earlier = add_usage(self._earlier, other.total)

    def _with_total(self, event: Event) -> Event:
        if not isinstance(event, UsageReport | MessageEnd):
            return event
        self.current = event.usage or self.current
        if self._earlier is None and not self._unreported:
            return event
        total = self.total
        if self.current is None:  # this one ends without a report
            total = _partial(total)
        return msgspec.structs.replace(event, usage=total)


_REPORTS = frozenset({UsageReport, MessageEnd})


def _partial(usage: Usage | None) -> Usage | None:
    return usage and msgspec.structs.replace(usage, source="partial")


def add_usage(one: Usage | None, other: Usage | None) -> Usage | None:
    """Return the usage of two attempts; it is partial if either is."""
    if one is None or other is None:
        return one or other
    sums = {name: getattr(one, name) + getattr(other, name) for name in _COUNTED}
    source = one.source if other.source == "reported" else other.source
    return Usage(**sums, source=source)
