"""What all scorers share that are made of others: one generator of rounds, answered by threads or by asyncio.

A plan yields a *round*: which of the members are asked, and what. It receives, for each of them, one
outcome a request, checked, and in the end returns one outcome for each request that it was given.
"""

from __future__ import annotations

import contextvars
import copy
import queue
import threading
from abc import abstractmethod
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, TypeVar

from uprank.concurrency import Part, arun_round, run_round
from uprank.errors import AllModelsFailedError, DeadlineExceededError, InvalidScoresError, ScorerError, UprankError
from uprank.rounds import adrive, drive
from uprank.scorers.base import Outcome, Scorer, ScoreRequest, Scores
from uprank.scorers.callable import CallableScorer
from uprank.scorers.checking import check_scores
from uprank.scorers.evidence import Attempt

__all__ = [
    "Ask",
    "CombinedPlan",
    "CombinedScorer",
    "attempts_of",
    "aunchecked",
    "leaves",
    "request_to",
    "unchecked",
    "undeclared",
    "without_probabilities",
]

Self = TypeVar("Self", bound="CombinedScorer")


@dataclass(frozen=True, slots=True)
class Ask:
    """One member's part of a round.

    Args:
        scorer: Who is asked.
        requests: What; at least one.
        seconds: How long its answer is waited for; ``None`` sets no limit.
    """

    scorer: Scorer
    requests: Sequence[ScoreRequest]
    seconds: float | None = None


CombinedPlan: TypeAlias = "Generator[Sequence[Ask], list[list[Outcome]], list[Outcome]]"


class CombinedScorer(Scorer):
    """Base of the scorers that score by asking others. A subclass says who is asked what, in :meth:`_plan`.

    Args:
        members: Who may be asked; at least one. Closing the scorer closes them.
    """

    def __init__(self, members: Sequence[Scorer]) -> None:
        self._join(members)

    @abstractmethod
    def _plan(self, requests: Sequence[ScoreRequest]) -> CombinedPlan:
        """Yield rounds, receive the members' outcomes, and return one outcome a request.

        An outcome received is either checked scores (finite floats, one a text, usage with its pairs) or a
        :class:`~uprank.errors.ScorerError`; mistakes in the set-up and in the input are raised instead.

        Args:
            requests: At least one.
        """

    def with_members(self: Self, members: Sequence[Scorer]) -> Self:
        """The same scorer over other members, as many as it has. What it has learned of the members begins anew."""
        changed = copy.copy(self)
        changed._join(members)
        return changed

    def _join(self, members: Sequence[Scorer]) -> None:
        """Set the members, and all that is told of a scorer and depends on them alone."""
        self.members = tuple(members)
        self.key_variable = self.members[0].key_variable
        self.accepts_instruction = any(member.accepts_instruction for member in self.members)
        self.listwise = any(member.listwise for member in self.members)

    def score(self, query: str, texts: Sequence[str], *, instruction: str | None = None) -> Scores:
        return _raised(self.score_many([ScoreRequest(query, texts, instruction)])[0])

    async def ascore(self, query: str, texts: Sequence[str], *, instruction: str | None = None) -> Scores:
        return _raised((await self.ascore_many([ScoreRequest(query, texts, instruction)]))[0])

    def score_many(self, requests: Sequence[ScoreRequest]) -> list[Outcome]:
        """As :meth:`Scorer.score_many`; members of one round are asked at once, in threads."""
        return drive(self._plan(requests), _round) if requests else []

    async def ascore_many(self, requests: Sequence[ScoreRequest]) -> list[Outcome]:
        """As :meth:`score_many`. Cancelling the task cancels what is under way."""
        return await adrive(self._plan(requests), _around) if requests else []

    def precompute(self, texts: Iterable[str], *, progress: bool = False) -> int:
        """Have the members that keep document vectors compute them; see :meth:`Scorer.precompute`.

        Returns:
            The most that one of them did not have already.
        """
        keeping = [member for member in self.members if _keeps_vectors(member)]
        if not keeping:
            return super().precompute(texts, progress=progress)
        if len(keeping) == 1:
            return keeping[0].precompute(texts, progress=progress)
        given = list(texts)
        return max(member.precompute(given, progress=progress) for member in keeping)

    def exact(self: Self) -> Self:
        """The same over the float32 forms of its members; see :meth:`Scorer.exact`."""
        return self.with_members([member.exact() for member in self.members])

    def load(self) -> None:
        for member in self.members:
            member.load()

    def without_probabilities(self, *, calibrated: bool) -> Scorer | None:
        """The scorer whose numbers this one hands on though they are known to be no probabilities, nor to become any.

        Args:
            calibrated: As for :meth:`undeclared`.
        """
        return None if calibrated or self.calibrated or self.score_kind not in ("cosine", "rank") else self

    def undeclared(self, *, calibrated: bool) -> Scorer | None:
        """The plain function whose numbers this scorer hands on without anybody having said what they mean.

        Args:
            calibrated: Whether somebody has said how the numbers of this scorer become probabilities.
        """
        return None

    def close(self) -> None:
        errors = [error for member in self.members if (error := _closing(member)) is not None]
        if errors:
            raise errors[0]

    async def aclose(self) -> None:
        errors: list[Exception] = []
        for member in self.members:
            try:
                await member.aclose()
            except Exception as error:  # the others are to be closed all the same
                errors.append(error)
        if errors:
            raise errors[0]


def leaves(scorer: Scorer) -> list[Scorer]:
    """The scorers that a scorer is made of in the end; of one that is not combined, itself."""
    if isinstance(scorer, CombinedScorer):
        return [leaf for member in scorer.members for leaf in leaves(member)]
    return [scorer]


def undeclared(scorer: Scorer, *, calibrated: bool = False) -> Scorer | None:
    """The plain function behind a scorer of which nobody has said what its numbers mean; ``None`` if there is none.

    A sigmoid over such numbers would be a guess, so probabilities are not to be made of them.

    Args:
        scorer: What scores.
        calibrated: Whether somebody has said how its numbers become probabilities.
    """
    if isinstance(scorer, CombinedScorer):
        return scorer.undeclared(calibrated=calibrated)
    return scorer if isinstance(scorer, CallableScorer) and not (scorer.declared or calibrated) else None


def without_probabilities(scorer: Scorer, *, calibrated: bool = False) -> Scorer | None:
    """What is known to give no probabilities behind a scorer; ``None`` if nothing is.

    Args:
        scorer: What scores.
        calibrated: As for :func:`undeclared`.
    """
    if isinstance(scorer, CombinedScorer):
        return scorer.without_probabilities(calibrated=calibrated)
    known = scorer.score_kind in ("cosine", "rank")
    return scorer if known and not (calibrated or scorer.calibrated) else None


def request_to(member: Scorer, request: ScoreRequest) -> ScoreRequest:
    """The request without the instruction, where the member takes none."""
    if request.instruction is None or member.accepts_instruction:
        return request
    return replace(request, instruction=None)


def attempts_of(member: Scorer, error: Exception, seconds: float) -> tuple[Attempt, ...]:
    """What is told of a member that gave no scores: of one made of others, what it tells of these."""
    if isinstance(error, AllModelsFailedError) and error.attempts:
        return error.attempts
    kind = type(error).__name__
    return (Attempt(member.name, str(error) or kind, kind, seconds),)


def _closing(member: Scorer) -> Exception | None:
    try:
        member.close()
    except Exception as error:  # the others are to be closed all the same
        return error
    return None


def _keeps_vectors(scorer: Scorer) -> bool:
    return any(type(leaf).precompute is not Scorer.precompute for leaf in leaves(scorer))


def unchecked(ask: Ask) -> list[Outcome]:
    """Ask one scorer, for those who check its answer themselves; raises what it raises."""
    return ask.scorer.score_many(ask.requests)


async def aunchecked(ask: Ask) -> list[Outcome]:
    """As :func:`unchecked`, awaiting it."""
    return await ask.scorer.ascore_many(ask.requests)


def _one(ask: Ask) -> Generator[Ask, list[Outcome], list[Outcome] | Exception]:
    return (yield ask)


def _round(asks: Sequence[Ask]) -> list[list[Outcome]]:
    if len(asks) == 1:
        return [_answer(asks[0])]
    parts = _parts(asks)
    return _all(run_round(parts, lambda ask, _: _answer(ask), workers=len(parts)))


async def _around(asks: Sequence[Ask]) -> list[list[Outcome]]:
    if len(asks) == 1:
        return [await _aanswer(asks[0])]
    parts = _parts(asks)
    return _all(await arun_round(parts, _aanswer, workers=len(parts)))


def _parts(asks: Sequence[Ask]) -> Sequence[Part[Ask, list[Outcome], list[Outcome] | Exception]]:
    """Each member by itself: one that raises does not stop the others of the round."""
    return [Part(_one(ask), number) for number, ask in enumerate(asks)]


def _all(answers: Sequence[list[Outcome] | Exception]) -> list[list[Outcome]]:
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return list(answers)  # type: ignore[arg-type]  # none of them is an exception


def _answer(ask: Ask) -> list[Outcome]:
    if ask.seconds is None:
        return _checked(ask, _called(ask))
    done: queue.SimpleQueue[list[Outcome] | BaseException] = queue.SimpleQueue()

    def work() -> None:
        try:
            done.put(_called(ask))
        except BaseException as error:  # e.g. SystemExit: raised in the caller's thread
            done.put(error)

    context = contextvars.copy_context()  # by which frameworks know whose call this is
    threading.Thread(target=context.run, args=(work,), name="uprank-member", daemon=True).start()
    try:
        answer = done.get(timeout=max(0.0, ask.seconds))
    except queue.Empty:
        answer = [_too_late(ask)] * len(ask.requests)
    if isinstance(answer, BaseException):
        raise answer
    return _checked(ask, answer)


async def _aanswer(ask: Ask) -> list[Outcome]:
    import asyncio  # imported late: a third of the time of `import uprank`

    outcomes: list[Outcome]
    try:
        outcomes = await asyncio.wait_for(_acalled(ask), ask.seconds)
    except asyncio.TimeoutError:  # the scorer's own is among the outcomes
        outcomes = [_too_late(ask)] * len(ask.requests)
    return _checked(ask, outcomes)


async def _acalled(ask: Ask) -> list[Outcome]:
    try:
        return await ask.scorer.ascore_many(ask.requests)
    except Exception as error:  # as below
        return [error] * len(ask.requests)


def _called(ask: Ask) -> list[Outcome]:
    try:
        return ask.scorer.score_many(ask.requests)
    except Exception as error:  # handed on as a value: the plan decides what it means
        return [error] * len(ask.requests)


def _checked(ask: Ask, outcomes: list[Outcome]) -> list[Outcome]:
    name = ask.scorer.name
    if not isinstance(outcomes, Sequence) or len(outcomes) != len(ask.requests):
        answer = len(outcomes) if isinstance(outcomes, Sequence) else type(outcomes).__name__
        problem = f"{name} answered {answer} for {len(ask.requests)} requests; its score_many() is wrong."
        return [InvalidScoresError(problem)] * len(ask.requests)
    return [_sound(ask.scorer, request, outcome) for request, outcome in zip(ask.requests, outcomes, strict=True)]


def _sound(scorer: Scorer, request: ScoreRequest, outcome: Outcome) -> Outcome:
    """Checked scores, or a scorer's error; a mistake in the set-up or the input is raised."""
    name = scorer.name
    try:
        if isinstance(outcome, Exception):
            raise outcome
        scores = check_scores(outcome, len(request.texts), name)
        pairs = scores.usage.pairs if isinstance(scorer, CombinedScorer) else len(request.texts)
        return replace(scores, usage=replace(scores.usage, pairs=pairs))
    except ScorerError as error:
        return error
    except UprankError:
        raise
    except Exception as error:
        failure = ScorerError(f"{name} failed with {type(error).__name__}: {error}")
        failure.__cause__ = error
        return failure


def _too_late(ask: Ask) -> DeadlineExceededError:
    return DeadlineExceededError(
        f"{ask.scorer.name} gave no answer within the {ask.seconds:.3g} s that were left.", model=ask.scorer.name
    )


def _raised(outcome: Outcome) -> Scores:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome
