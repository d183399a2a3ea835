"""From one score request to HTTP requests and back, as a generator that does no input or output."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from uprank.concurrency import Outcomes
from uprank.errors import BadReplyError, CanaryError, RequestRefusedError, RequestTooLargeError
from uprank.scorers.base import ScoreKind, ScoreRequest, Scores, Usage
from uprank.scorers.http.canary import CANARY, canary_problem
from uprank.scorers.http.dialects import Dialect, request_body
from uprank.scorers.http.failures import Asked, bad_reply, splittable, stated_documents
from uprank.scorers.http.gate import Gate
from uprank.scorers.http.messages import Call, Lost, Reply
from uprank.scorers.http.replies import Results, read_results, stated_kind
from uprank.scorers.http.retries import Clock, Meter, RetryPolicy, Step, attempts
from uprank.scorers.http.splitting import Limits, parts, split
from uprank.secrets import redact

__all__ = ["Attempts", "Memory", "ScorePlan", "Target", "TooLarge", "prepare", "score_plan"]

_MOST_HALVINGS = 4  # a request that is too large in a sixteenth of it is too large for another reason


@dataclass(frozen=True, slots=True)
class TooLarge:
    """A request that the service found too large, but may take in parts.

    Args:
        documents: How many it says it takes, if it does.
    """

    documents: int | None


Attempts: TypeAlias = "Generator[Step, Reply | Lost | None, Results | TooLarge]"
ScorePlan: TypeAlias = "Generator[list[Attempts], Outcomes[Results | TooLarge], Scores]"


@dataclass(frozen=True, slots=True)
class Target:
    """One model of one service, and how it is to be asked.

    Args:
        provider: The scheme.
        name: The model's full name.
        model: The model's name, as the service knows it.
        url: Where requests go.
        info_url: Where the server tells its limits, if it does.
        dialect: The shape of the requests.
        fields: What is sent besides, in every request.
        instruction: Where an instruction goes.
        kind: What the scores mean, where a reply does not say.
        kind_given: Whether the caller said so, so that no reply does.
        native: What is reported instead.
        listwise: Never to be split.
        limits: Of one request.
        max_documents: The caller's own limit, which no server's raises.
        counts_tokens: Whether the tokens that it reports are the model's.
        check: Whether to score an obvious pair first.
        price: Cost of a unit of use.
        policy: When to give up.
        gate: Counts the requests to that host.
        advice: What to do about a wrong key.
        keyed: Whether there is a key to send, at present.
        secrets: What must not be shown, at present.
    """

    provider: str
    name: str
    model: str
    url: str
    info_url: str | None
    dialect: Dialect
    fields: Mapping[str, object]
    instruction: str | None
    kind: ScoreKind
    kind_given: bool
    native: Literal["probability"] | None
    listwise: bool
    limits: Limits
    max_documents: int | None
    counts_tokens: bool
    check: bool
    price: Mapping[str, float]
    policy: RetryPolicy
    gate: Gate
    advice: str
    keyed: Callable[[], bool]
    secrets: Callable[[], tuple[str, ...]]

    def kind_of(self, reply: Reply) -> ScoreKind:
        """What the scores of a reply mean."""
        return self.kind if self.kind_given else stated_kind(reply.headers) or self.kind

    def asked(self, call: Call, documents: int) -> Asked:
        return Asked(self.provider, self.name, call, documents, self.advice, self.secrets(), self.keyed())


@dataclass(slots=True)
class Memory:
    """What a scorer has learnt of its server.

    Args:
        limits: The server's own.
        checked: Whether the obvious pair has been scored well.
    """

    limits: Limits | None = None
    checked: bool = False


@dataclass(slots=True)
class _Chunk:
    """Consecutive documents for one request, and how often they were halved to get there."""

    positions: range
    halvings: int = 0


@dataclass(slots=True)
class _Total:
    """What all requests of one call add up to."""

    values: list[float]
    warnings: dict[str, None] = field(default_factory=dict)  # in order, each once
    kind: ScoreKind | None = None

    def fits(self, results: Results) -> bool:
        """Whether these scores mean the same as those that came before."""
        return self.kind in (None, results.kind)

    def add(self, positions: range, results: Results) -> None:
        self.values[positions.start : positions.stop] = results.values
        self.warnings.update(dict.fromkeys(results.warnings))
        self.kind = results.kind


def prepare(
    target: Target, memory: Memory, clock: Clock, meter: Meter
) -> Generator[list[Attempts], Outcomes[Results | TooLarge], None]:
    """Find out, once, what has to be known of a server before it is asked for scores.

    Yields:
        Rounds of requests; none where nothing is to be found out any more.

    Raises:
        ServiceError: If the server cannot be asked, or scores an obvious pair wrongly.
    """
    if target.info_url is not None and memory.limits is None:
        yield from _learn_limits(target, memory, clock, meter)
    if target.check and not memory.checked:
        yield from _check_canary(target, memory, clock, meter)


def score_plan(target: Target, memory: Memory, request: ScoreRequest, clock: Clock, meter: Meter) -> ScorePlan:
    """Score one request.

    Args:
        target: Who is asked, and how.
        memory: What is known of the server.
        request: The query and its texts.
        clock: The time that this request has.
        meter: Counts what is sent for it.

    Yields:
        Rounds of requests that may be sent at once.

    Returns:
        The scores, of all chunks in the order of the texts.

    Raises:
        ServiceError: If any of its requests failed: there is no partial answer.
    """
    chunks = [_Chunk(positions) for positions in _chunks(target, memory.limits or target.limits, request)]
    total = _Total([0.0] * len(request.texts))
    while chunks:
        outcomes = yield [_chunk_attempts(target, request, chunk, clock, meter) for chunk in chunks]
        clock.resume()
        asked, chunks = chunks, []
        for chunk, outcome in zip(asked, outcomes, strict=True):
            if isinstance(outcome, Exception):
                raise outcome
            if isinstance(outcome, Results):
                if not total.fits(outcome):
                    raise _unlike(target, total.kind, outcome.kind)
                total.add(chunk.positions, outcome)
                meter.add(outcome)
                continue
            chunks += [_Chunk(part, chunk.halvings + 1) for part in parts(chunk.positions, outcome.documents)]
            memory.limits = (memory.limits or target.limits).at_most(outcome.documents)  # for the next call
    kind = total.kind or target.kind
    native = target.native if kind == target.kind else None  # a sigmoid is for logits alone
    return Scores(total.values, kind, native, usage=_usage(target, meter), warnings=tuple(total.warnings))


def _chunk_attempts(target: Target, request: ScoreRequest, chunk: _Chunk, clock: Clock, meter: Meter) -> Attempts:
    """The attempts for one chunk; where parts of it may do, that is a result, so that the others go on."""
    texts = request.texts[chunk.positions.start : chunk.positions.stop]
    try:
        return (yield from _attempts(target, request, texts, clock, meter))
    except RequestTooLargeError as error:
        whole = target.listwise or len(texts) == 1 or chunk.halvings == _MOST_HALVINGS
        if whole or not splittable(error):
            raise
        return TooLarge(stated_documents(error))
    finally:
        clock.pause()


def _attempts(target: Target, request: ScoreRequest, texts: Sequence[str], clock: Clock, meter: Meter) -> Attempts:
    query, fields = request.query, dict(target.fields)
    if request.instruction is not None and target.instruction == "query":
        query = f"{request.instruction}\n{query}"
    elif request.instruction is not None and target.instruction is not None:
        fields[target.instruction] = request.instruction
    call = Call(target.url, request_body(target.dialect, target.model, query, texts, fields))
    asked = target.asked(call, len(texts))

    def accept(reply: Reply) -> Results:
        try:
            results = read_results(reply.data, len(texts), target.kind_of(reply))
        except ValueError as error:
            problem = str(error)
        else:
            return replace(results, warnings=tuple(redact(warning, asked.secrets) for warning in results.warnings))
        raise bad_reply(reply, asked, problem)

    return attempts(call, asked, accept, policy=target.policy, clock=clock, meter=meter, gate=target.gate)


def _chunks(target: Target, limits: Limits, request: ScoreRequest) -> list[range]:
    chunks = split(request.query, request.texts, limits)
    if target.listwise and len(chunks) > 1:
        sent = f"{len(request.texts)} documents"
        raise RequestTooLargeError(
            f"{target.name}: {sent} are more than one request takes ({limits}), and this model scores documents "
            "relative to each other, so that they cannot be split. Give it fewer.",
            sent=sent,
            allowed=str(limits),
            provider=target.provider,
            model=target.name,
        )
    return chunks


def _learn_limits(
    target: Target, memory: Memory, clock: Clock, meter: Meter
) -> Generator[list[Attempts], Outcomes[Results | TooLarge], None]:
    """Ask a server for its limits. One that does not tell has the usual ones."""
    call = Call(str(target.info_url))
    found: list[object] = []

    def accept(reply: Reply) -> Results:
        found.append(reply.data)
        return Results(())

    asked = target.asked(call, 0)
    (outcome,) = yield [attempts(call, asked, accept, policy=target.policy, clock=clock, meter=meter, gate=target.gate)]
    if isinstance(outcome, Exception) and not isinstance(outcome, (RequestRefusedError, BadReplyError)):
        raise outcome
    info = found[0] if found and isinstance(found[0], Mapping) else {}
    batch, permits = info.get("max_client_batch_size"), info.get("max_concurrent_requests")
    limits = target.limits
    if isinstance(batch, int) and batch > 0:
        limits = replace(limits, documents=batch).at_most(target.max_documents)
    if isinstance(permits, int) and permits > 0:  # one permit a text, and no queue for those without
        limits = limits.at_most(permits)
        target.gate.lower(permits // (limits.documents or 1))
    memory.limits = limits


def _check_canary(
    target: Target, memory: Memory, clock: Clock, meter: Meter
) -> Generator[list[Attempts], Outcomes[Results | TooLarge], None]:
    """Score an obvious pair, once: a server started with the wrong template answers, but wrongly."""
    (outcome,) = yield [_attempts(target, CANARY, CANARY.texts, clock, meter)]
    if not isinstance(outcome, Results):
        raise outcome if isinstance(outcome, Exception) else TypeError("the attempts of a pair are never split")
    meter.add(outcome)
    problem = canary_problem(outcome.values, outcome.kind or target.kind)
    if problem:
        raise CanaryError(f"{target.name} ({target.url}): {problem}", provider=target.provider, model=target.name)
    memory.checked = True


def _unlike(target: Target, one: ScoreKind | None, other: ScoreKind | None) -> BadReplyError:
    return BadReplyError(
        f"{target.name} ({target.url}): one request was sent in parts, and the scores of one reply are of kind {one}, "
        f"those of another of kind {other}. Ask again, or say what all of them mean by score_kind=.",
        provider=target.provider,
        model=target.name,
    )


def _usage(target: Target, meter: Meter) -> Usage:
    tokens = meter.tokens if target.counts_tokens else None
    usage = Usage(tokens=tokens, search_units=meter.search_units, requests=meter.requests, retries=meter.retries)
    amounts = {name: getattr(usage, name) for name in target.price}
    if not amounts or None in amounts.values():
        return usage
    return replace(usage, cost=sum(target.price[name] * amount for name, amount in amounts.items()))
