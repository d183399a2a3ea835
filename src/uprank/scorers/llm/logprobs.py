"""From the probabilities of an answer's first tokens to probabilities of labels, of "yes", and to expected grades.

Only one position is read. What was sampled is taken to be the most likely token of each position, as it is at
temperature 0; thinking that has ended, white space, brackets, quotes and markup before the answer are passed over.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

__all__ = ["expected_grade", "label_probabilities", "yes_probability"]

_BYTES = {"Ġ": " ", "▁": " ", "Ċ": "\n", "<0x0A>": "\n"}  # how tokenizers write spaces and newlines
_THOUGHT = re.compile(r"^.*</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
_BEFORE = re.compile(r"(?:<\|[^<>|]{0,40}\|>|</?(?:s|bos|answer)>|[^\w<]|<)*", re.IGNORECASE)
_AROUND = " \t\n\r\"'`*_()[]{}<>.,:;!"


def label_probabilities(
    logprobs: Sequence[Mapping[str, float]], labels: Sequence[str]
) -> tuple[float | None, ...] | None:
    """Return how likely each label is to be what the answer names.

    Read at the first position where labels together are more likely than any other token, so that a word such as "A"
    at the beginning of a sentence is not taken for a label. Labels that differ in spaces, brackets and quotes, and
    in case if that tells none of them apart, are summed.

    Args:
        logprobs: For each of the first tokens the natural logarithm of the probability of the likely ones.
        labels: One token each, no two alike.

    Returns:
        For each label its share of the probability of all labels that are listed, so that they sum to 1; ``None`` for
        those that are not listed. ``None`` for all together if no position names a label.
    """
    exact = {label: number for number, label in enumerate(labels)}
    folded = {label.casefold(): number for label, number in exact.items()}
    if len(folded) < len(exact):
        folded = {}
    start = _answer_start(logprobs)
    for tokens in logprobs[len(logprobs) if start is None else start :]:
        seen: dict[int, list[float]] = {}
        other = -math.inf
        for token, logprob in _finite(tokens):
            name = _plain(token)
            number = exact.get(name, folded.get(name.casefold()))
            if number is None:
                other = max(other, logprob)
            else:
                seen.setdefault(number, []).append(logprob)
        sums = {number: _log_sum(values) for number, values in seen.items()}
        total = _log_sum(list(sums.values()))
        if sums and total >= other and total > -math.inf:
            return tuple(math.exp(sums[number] - total) if number in sums else None for number in range(len(labels)))
    return None


def yes_probability(logprobs: Sequence[Mapping[str, float]]) -> float | None:
    """Return p(yes) / (p(yes) + p(no)) at the first token that is not thinking, white space, bracket, quote or markup.

    "true" counts as "yes" and "false" as "no"; what differs in case, spaces and quotes is summed. If one of the two is
    not listed, it is taken to be as likely as it can be: not more than the least likely token that is listed, nor
    than what all listed ones leave of 1. So a certain "yes" stays a little below 1.

    Args:
        logprobs: For each of the first tokens the natural logarithm of the probability of the likely ones.

    Returns:
        From 0 to 1; ``None`` if neither is listed.
    """
    tokens = _first(logprobs)
    said: dict[bool, float] = {}
    for answer, words in ((True, ("yes", "true")), (False, ("no", "false"))):
        listed = [logprob for token, logprob in tokens if _plain(token).casefold() in words]
        if listed:
            said[answer] = math.exp(_log_sum(listed))
    if not said:
        return None
    least = math.exp(min(logprob for _, logprob in tokens))
    left = max(0.0, 1.0 - math.fsum(math.exp(logprob) for _, logprob in tokens))
    yes, no = (said.get(answer, min(least, left)) for answer in (True, False))
    return yes / (yes + no) if yes + no > 0 else None


def expected_grade(logprobs: Sequence[Mapping[str, float]], top: int) -> float | None:
    """Return the mean of the grades 0 to ``top``, weighted by their probabilities, divided by ``top``.

    Read at the first token that is not thinking, white space, bracket, quote or markup; grades that are not
    listed there count as impossible.

    Args:
        logprobs: For each of the first tokens the natural logarithm of the probability of the likely ones.
        top: The highest grade. Above 9 a grade may be two tokens, so there is no result.

    Returns:
        From 0 to 1; ``None`` if no grade is listed.

    Raises:
        ValueError: If ``top`` is less than 1.
    """
    if top < 1:
        raise ValueError(f"The highest grade is {top}; it must be at least 1.")
    grades = {str(grade): grade for grade in range(top + 1)} if top <= 9 else {}
    listed = [(grades[name], logprob) for token, logprob in _first(logprobs) if (name := _plain(token)) in grades]
    highest = max((logprob for _, logprob in listed), default=-math.inf)
    if highest == -math.inf:
        return None
    weights = [(grade, math.exp(logprob - highest)) for grade, logprob in listed]
    return math.fsum(grade * weight for grade, weight in weights) / math.fsum(weight for _, weight in weights) / top


def _first(logprobs: Sequence[Mapping[str, float]]) -> list[tuple[str, float]]:
    """The tokens where the answer begins."""
    start = _answer_start(logprobs)
    return list(_finite(logprobs[start])) if start is not None and start < len(logprobs) else []


def _answer_start(logprobs: Sequence[Mapping[str, float]]) -> int | None:
    """The first position of the answer; ``None`` if thinking has not ended."""
    written = [_written(max(tokens, key=tokens.__getitem__)) if tokens else "" for tokens in logprobs]
    text = "".join(written)
    thought = _THOUGHT.match(text)
    if thought is None and re.search(r"<think(?:ing)?>", text, re.IGNORECASE):
        return None
    before = _BEFORE.match(text, thought.end() if thought else 0)
    passed = before.end() if before else 0
    for position, token in enumerate(written):
        passed -= len(token)
        if passed < 0:
            return position
    return len(written)


def _written(token: str) -> str:
    for byte, sign in _BYTES.items():
        token = token.replace(byte, sign)
    return token


def _plain(token: str) -> str:
    return _written(token).strip(_AROUND)


def _finite(tokens: Mapping[str, float]) -> list[tuple[str, float]]:
    """The tokens with a probability: neither no number nor above 1, but for what rounding adds."""
    return [(token, min(logprob, 0.0)) for token, logprob in tokens.items() if not math.isnan(logprob) and logprob < 1]


def _log_sum(values: Sequence[float]) -> float:
    highest = max(values, default=-math.inf)
    if highest == -math.inf:
        return highest
    return highest + math.log(math.fsum(math.exp(value - highest) for value in values))
