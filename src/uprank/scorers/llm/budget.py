"""What a ranking may cost, what it has cost, and what a token costs."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, fields

from uprank.errors import ConfigurationError
from uprank.scorers.base import Usage
from uprank.scorers.http.retries import Clock, Meter

__all__ = ["Budget", "Price", "Spending"]

_MILLION = 1_000_000


def _checked(name: str, value: float | None, *, whole: bool) -> None:
    kinds = int if whole else (int, float)
    if value is not None and (isinstance(value, bool) or not isinstance(value, kinds) or not 0 < value < float("inf")):
        raise ConfigurationError(
            f"{name} must be a positive {'integer' if whole else 'number'} or None, got {value!r}."
        )


@dataclass(frozen=True, slots=True)
class Budget:
    """What one ranking may use. At its end the best order so far is returned, flagged as degraded.

    It is checked before each call; calls already on their way are finished, and one that turns out
    dearer than estimated may pass it by that much.

    Args:
        max_calls: Most calls of the model; an attempt that failed on its way is repeated within its call.
        max_tokens: Most tokens, read and written together.
        max_cost: Most money, in the currency of the price; needs ``price=``.
        deadline: Most seconds, all waiting included.

    Raises:
        ConfigurationError: If one is not positive.
    """

    max_calls: int | None = None
    max_tokens: int | None = None
    max_cost: float | None = None
    deadline: float | None = None

    @classmethod
    def of(cls, value: Mapping[str, float]) -> Budget:
        """Accept ``{"max_calls": 5}`` too, as a framework's configuration may hold it.

        Raises:
            ConfigurationError: If there is no such limit.
        """
        known = [field.name for field in fields(cls)]
        for name in value:
            if name not in known:
                raise ConfigurationError(f"budget has no limit {name!r}; it takes {', '.join(known)}.")
        return cls(**value)  # type: ignore[arg-type]  # checked when it is made

    def __post_init__(self) -> None:
        _checked("max_calls", self.max_calls, whole=True)
        _checked("max_tokens", self.max_tokens, whole=True)
        _checked("max_cost", self.max_cost, whole=False)
        _checked("deadline", self.deadline, whole=False)


@dataclass(frozen=True, slots=True)
class Price:
    """What a million tokens cost, in any one currency.

    Args:
        input: Of those that the model reads.
        output: Of those that it writes.

    Raises:
        ConfigurationError: If one is negative or no number.
    """

    input: float
    output: float

    def __post_init__(self) -> None:
        for name, value in (("input", self.input), ("output", self.output)):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
                raise ConfigurationError(f"The price of {name} must be a number of at least 0, got {value!r}.")

    @classmethod
    def of(cls, value: Price | Mapping[str, float] | None) -> Price | None:
        """Accept ``{"input": 0.4, "output": 1.6}`` too.

        Raises:
            ConfigurationError: If it is neither.
        """
        if value is None or isinstance(value, Price):
            return value
        if not isinstance(value, Mapping) or set(value) != {"input", "output"}:
            raise ConfigurationError(
                f'price must be {{"input": ..., "output": ...}}, the cost of a million tokens; got {value!r}.'
            )
        return cls(value["input"], value["output"])

    def cost(self, input_tokens: int, output_tokens: int) -> float:
        return (self.input * input_tokens + self.output * output_tokens) / _MILLION


class Spending:
    """Counts what the calls of one ranking use, from any thread, against its budget.

    Args:
        budget: What it may use.
        price: What a token costs, if it is known.
    """

    def __init__(self, budget: Budget, price: Price | None) -> None:
        self._budget, self._price = budget, price
        self._lock = threading.Lock()
        self.clock = Clock(budget.deadline)
        self.calls = self.requests = self.retries = 0
        self.input_tokens = self.output_tokens = 0
        self._pending_input = self._pending_output = 0
        self.answered = self.unanswered = 0  # questions, whatever calls they took
        self.reached: str | None = None

    @property
    def cost(self) -> float | None:
        return None if self._price is None else self._price.cost(self.input_tokens, self.output_tokens)

    def note(self, *, answered: bool) -> None:
        """Count a question."""
        with self._lock:
            self.answered += answered
            self.unanswered += not answered

    @property
    def limited(self) -> bool:
        """Whether there is any limit."""
        return self._budget != Budget()

    def affords(self, calls: int, input_tokens: int, output_tokens: int) -> bool:
        """Whether calls may be made that are expected to use so much."""
        with self._lock:
            beyond = self._beyond(calls, input_tokens, output_tokens)
            self.reached = beyond or self.reached  # what is told; it may be affordable again
            return beyond is None

    def late(self) -> bool:
        """Whether the deadline has passed."""
        return self.clock.passed() and not self.affords(0, 0, 0)

    def reserve(self, calls: int, input_tokens: int, output_tokens: int) -> bool:
        """Set aside what calls are expected to use; false, and nothing is set aside, where that is too much."""
        with self._lock:
            beyond = self._beyond(calls, input_tokens, output_tokens)
            self.reached = beyond or self.reached
            if beyond is not None:
                return False
            self.calls += calls
            self._pending_input += input_tokens
            self._pending_output += output_tokens
            return True

    def _beyond(self, calls: int, input_tokens: int, output_tokens: int) -> str | None:
        """The limit that would be passed; the lock is held."""
        budget = self._budget
        read = self.input_tokens + self._pending_input + input_tokens
        written = self.output_tokens + self._pending_output + output_tokens
        if budget.max_calls is not None and self.calls + calls > budget.max_calls:
            return f"max_calls={budget.max_calls}"
        if budget.max_tokens is not None and read + written > budget.max_tokens:
            return f"max_tokens={budget.max_tokens}"
        if (
            budget.max_cost is not None
            and self._price is not None
            and self._price.cost(read, written) > budget.max_cost
        ):
            return f"max_cost={budget.max_cost:g}"
        if budget.deadline is not None and self.clock.passed():
            return f"deadline={budget.deadline:g}"
        return None

    def settle(self, expected: tuple[int, int], used: tuple[int, int], meter: Meter, *, counted: bool) -> None:
        """Replace what was set aside for one call by what it used, and say whether it counts as a call."""
        with self._lock:
            self.calls -= not counted
            self._pending_input -= expected[0]
            self._pending_output -= expected[1]
            self.input_tokens += used[0]
            self.output_tokens += used[1]
            self.requests += meter.requests
            self.retries += meter.retries

    def usage(self) -> Usage:
        """What was used so far."""
        return Usage(
            tokens=self.input_tokens + self.output_tokens,
            requests=self.requests,
            retries=self.retries,
            cost=self.cost,
        )
