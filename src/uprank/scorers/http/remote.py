"""What all scorers share that ask a rerank service: what must be known of the server first, then all requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TypeAlias

from uprank.concurrency import together
from uprank.scorers.base import Outcome, ScoreRequest
from uprank.scorers.http.plan import Memory, Target, TooLarge, prepare, score_plan
from uprank.scorers.http.replies import Results
from uprank.scorers.http.retries import Clock, Meter
from uprank.scorers.http.talking import Endpoint, RoundsPlan, TalkingScorer
from uprank.secrets import fingerprinted

__all__ = ["RemoteScorer"]

_Result: TypeAlias = "Results | TooLarge"


class RemoteScorer(TalkingScorer[_Result]):
    """Base of the scorers that ask a service. A subclass says whom (the target) and how (the endpoint).

    Args:
        target: What is asked of whom.
        endpoint: What carries the requests.
    """

    def __init__(self, target: Target, endpoint: Endpoint) -> None:
        super().__init__(endpoint, target.gate)
        self._target = target
        self._memory = Memory()
        self.name = target.name
        self.score_kind = target.native or target.kind
        self.listwise = target.listwise
        self.accepts_instruction = target.instruction is not None

    def _plan(self, requests: Sequence[ScoreRequest]) -> RoundsPlan[_Result]:
        if not requests:
            return []
        target, memory = self._target, self._memory
        clocks = [Clock(target.policy.deadline) for _ in requests]
        meters = [Meter() for _ in requests]
        # What is asked first counts for the first request.
        (problem,) = yield from together([prepare(target, memory, clocks[0], meters[0])])
        if isinstance(problem, Exception):
            return [problem] * len(requests)
        each = zip(requests, clocks, meters, strict=True)
        outcomes: list[Outcome] = yield from together([score_plan(target, memory, *one) for one in each])
        return outcomes

    @property
    def url(self) -> str:
        """Where it asks."""
        return self._target.url

    def identity(self) -> Mapping[str, object] | None:
        target = self._target
        if not target.model:  # a server that runs one model may run another one tomorrow
            return None
        return {
            "scheme": target.provider,
            "model": target.model,
            "url": target.url,
            "dialect": asdict(target.dialect),
            "fields": fingerprinted(target.fields),
            "instruction": target.instruction,
            "kind": target.kind,
            **({"kind_given": True} if target.kind_given else {}),
            "native": target.native,
        }

    def close(self) -> None:
        """Close the connections. The next call opens new ones, and asks the server anew for its limits."""
        self._memory = Memory()
        super().close()

    async def aclose(self) -> None:
        """As :meth:`close`; waits until those of the running event loop are closed."""
        self._memory = Memory()
        await super().aclose()
