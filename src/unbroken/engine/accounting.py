"""The attempts of one answer: what each took, how it ended, and what all of them used."""

from unbroken.engine.attempt import CurrentAttempt
from unbroken.engine.usage import UsageLedger
from unbroken.errors import UnbrokenError
from unbroken.response import Attempt, Quote


class Accounting:
    """The finished attempts and the usage ledger of one answer."""

    def __init__(self, quote: Quote) -> None:
        self.attempts: list[Attempt] = []
        self.skipped = 0
        self.ledger = UsageLedger()
        self._quote = quote

    def finish(self, this: CurrentAttempt, error: UnbrokenError | None, now: float) -> None:
        """Write the attempt down, correct the rate limiter and inform the circuit breaker."""
        record, target = self.record(this, error, now), this.target
        self.attempts.append(record)
        self.skipped += this.skipped
        this.finish()
        if this.has_turn and record.usage is not None:
            used = record.usage.input_tokens + record.usage.output_tokens
            target.limiter.settle(this.tokens, used)
        if error is not None:
            target.circuit.on_failure(error, now)
        self.ledger.finish(complete=error is None, had_content=this.received_content)

    def leave(self, this: CurrentAttempt, now: float) -> None:
        """The attempt is given up before its end; it may have been paid for."""
        this.give_back_turn(now)
        this.target.circuit.on_cancel()
        self.attempts.append(self.record(this, None, now))
        self.skipped += this.skipped
        this.finish()
        self.ledger.finish(complete=False, had_content=this.status is not None)

    def absorb(self, other: "Accounting") -> None:
        """Take over the attempts and the usage of a hedge, which were made before."""
        self.attempts[:0] = other.attempts
        self.ledger.absorb(other.ledger)

    def record(self, this: CurrentAttempt, error: UnbrokenError | None, now: float) -> Attempt:
        """Return the attempt as the caller sees it."""
        return Attempt(
            provider=this.target.provider.name,
            model=this.target.request.model,
            delay=this.delay,
            duration=max(0.0, now - this.begin),
            status=this.status,
            request_id=this.request_id,
            error=error,
            usage=self.ledger.current,
            how=this.how,
            quote=self._quote,
            url=this.url,
        )
