"""What of a ranking's story clients and the log are told: never what a document, a service or a model said."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from uprank.ranking import Ranking

__all__ = ["discreet_log", "story_of"]


def story_of(ranking: Ranking) -> Iterator[str]:
    """What a client should know of how a ranking came about.

    A ranking's own warnings say more: they quote services, and so perhaps documents, even those of another client,
    where a model is left alone for a while because of its last error.
    """
    if not (ranking.warnings or ranking.degraded):
        return
    if ranking.attempts:
        tried = "; ".join(f"{attempt.model} did not ({attempt.kind})" for attempt in ranking.attempts)
        yield f"{ranking.model} answered; {tried}."
    cut = sum(hit.truncated is True for hit in ranking)
    if cut:
        yield f"{cut} of the {len(ranking)} documents returned are longer than the model reads, and were cut."
    if ranking.degraded:
        yield "The order is the best that could be had: a part of the scoring failed, or its budget did not suffice."


@contextmanager
def discreet_log() -> Iterator[None]:
    """Have the rest of uprank log discreetly, too: what may quote a request or a service is left out or told without.

    A record that may quote has an attribute ``discreet``: what to say instead, or ``None`` for nothing.
    """
    logger = logging.getLogger("uprank")
    discreet = _Discreet()
    logger.addFilter(discreet)
    try:
        yield
    finally:
        logger.removeFilter(discreet)


class _Discreet(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        if not hasattr(record, "discreet"):
            return True
        instead = record.discreet
        record.msg, record.args = instead, ()
        record.exc_info = record.exc_text = None
        return instead is not None
