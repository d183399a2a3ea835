"""From what a caller says of a model to the scorer that is asked: what stands around it, and behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from uprank.errors import ConfigurationError
from uprank.scorers.base import Scorer
from uprank.scorers.combined.wrapper import rebuilt
from uprank.scorers.registry import Model, as_scorer

if TYPE_CHECKING:
    from uprank.cache import Cache, CacheLike

__all__ = ["Around", "LongDocuments", "assembled", "cache_for"]

LongDocuments: TypeAlias = Literal["truncate", "max_passage", "mean_top"]


@dataclass(frozen=True, slots=True)
class Around:
    """What stands around a model; the fields are those of :class:`~uprank.Reranker`, the cache being made already."""

    fallback: Sequence[Model] = ()
    cache: Cache | None = None
    long_documents: LongDocuments = "truncate"
    passage_tokens: int | None = None
    passage_overlap: int | None = None


def assembled(model: Model, options: dict[str, object], around: Around) -> Scorer:
    """Make the scorer that a reranker asks.

    Each model has a cache and passages of its own, inside of what combines them: a fallback or the second stage of a
    cascade reads other windows than the first, and gives other scores.

    Args:
        model: The caller's.
        options: Of the model; with a fallback, ``deadline`` is of the whole chain.
        around: What stands around it.

    Raises:
        ConfigurationError: If it cannot work.
        MissingDependencyError: If a package is missing.
    """
    if around.long_documents not in get_args(LongDocuments):
        known = ", ".join(map(repr, get_args(LongDocuments)))
        raise ConfigurationError(f"long_documents must be one of {known}; got {around.long_documents!r}.")
    how = around.long_documents
    if how == "truncate" and (around.passage_tokens is not None or around.passage_overlap is not None):
        raise ConfigurationError('Documents are not read by passages: pass long_documents="max_passage" with that.')
    scorer = _with_fallback(model, options, around.fallback)
    if around.cache is not None:
        from uprank.scorers.combined.cached import with_cache

        scorer = with_cache(scorer, around.cache)
    if how != "truncate":
        from uprank.scorers.combined.passages import Passages

        tokens, overlap = around.passage_tokens, around.passage_overlap
        # Around the cache, so that scores of passages are kept, which documents may share.
        scorer = rebuilt(scorer, lambda one: Passages(one, how, tokens=tokens, overlap=overlap))
    return scorer


def cache_for(given: CacheLike | None) -> Cache | None:
    """The cache that a caller's ``cache=`` stands for; ``None`` for ``False`` and ``None``.

    Raises:
        ConfigurationError: If it is none, or the file cannot be used as one.
    """
    if given is False or given is None:
        return None
    from uprank.cache import cache_of  # late: few need it

    return cache_of(given)


def _with_fallback(model: Model, options: dict[str, object], fallback: Sequence[Model]) -> Scorer:
    if isinstance(fallback, (str, Scorer)) or not isinstance(fallback, Sequence):
        raise ConfigurationError(f"fallback must be a list of models, the first to be asked first; got {fallback!r}.")
    if not fallback:
        return as_scorer(model, options)
    from uprank.scorers.combined.fallback import Fallback

    deadline = options.pop("deadline", None)
    return Fallback([as_scorer(model, options), *fallback], deadline=deadline)  # type: ignore[arg-type]  # checked there
