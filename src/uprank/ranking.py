"""What a rerank returns: the same documents, best first, each with its index and score."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, overload

from uprank.documents import Document, scorable
from uprank.extras import require
from uprank.scorers.base import ScoreKind, Usage
from uprank.scorers.evidence import Attempt, Passage

if TYPE_CHECKING:
    import pandas

__all__ = ["RankedDocument", "Ranking"]


@dataclass(frozen=True, slots=True)
class RankedDocument:
    """One document of a ranking.

    Args:
        document: The caller's own :class:`~uprank.Document`, or the one made of the text or mapping given.
        index: Its position in the caller's list.
        rank: Its position in the full ranking; 0 is the most relevant.
        score: Its relevance score, of the ranking's ``score_kind``; ``None`` where there is none, as in a
            ranking that kept the original order, or below the documents that a language model scored.
        model: Which model gave the score, where several share a ranking, as in a cascade.
        stage: Which stage of a cascade gave it, the first being 0.
        passage: The part of the document that the score is of, with ``long_documents=``.
        truncated: Whether the model read only the beginning of the document; ``None`` where that is not known.
    """

    document: Document
    index: int
    rank: int
    score: float | None
    model: str | None = None
    stage: int | None = None
    passage: Passage | None = None
    truncated: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return rank, index, score, id, text and metadata, and what else is known of the score, ready for JSON.

        The metadata is the caller's: it must be fit for JSON itself.
        """
        passage = None if self.passage is None else asdict(self.passage)
        more = {"model": self.model, "stage": self.stage, "passage": passage, "truncated": self.truncated}
        return {
            "rank": self.rank,
            "index": self.index,
            "score": self.score,
            "id": self.document.id,
            "text": self.document.text,
            "metadata": dict(self.document.metadata),
            **{name: value for name, value in more.items() if value is not None},
        }


@dataclass(frozen=True, slots=True, repr=False)
class Ranking(Sequence[RankedDocument]):
    """Documents in order of relevance: score descending, then index ascending.

    A sequence of :class:`RankedDocument`; a slice of it is a ranking too.

    Args:
        query: What was asked.
        hits: The ranked documents.
        model: Which model scored them.
        score_kind: What their scores mean; ``None`` where nothing was scored and only the loaded
            model could tell.
        usage: What scoring consumed.
        elapsed: Wall-clock seconds of the call that made this ranking (for ``rank_many``, of the
            whole batch).
        degraded: True where the scorer failed and ``on_error="passthrough"`` kept the original
            order, scores being ``None`` then; and where the order is only the best that could be had.
        warnings: What the caller should know, e.g. why the ranking is degraded.
        attempts: The models that were to answer and did not, in the order they were asked.
    """

    query: str
    hits: tuple[RankedDocument, ...]
    model: str
    score_kind: ScoreKind | None
    usage: Usage = field(default_factory=Usage)
    elapsed: float = field(default=0.0, compare=False)
    degraded: bool = False
    warnings: tuple[str, ...] = ()
    attempts: tuple[Attempt, ...] = ()

    def __len__(self) -> int:
        return len(self.hits)

    def __iter__(self) -> Iterator[RankedDocument]:
        return iter(self.hits)

    @overload
    def __getitem__(self, index: int) -> RankedDocument: ...
    @overload
    def __getitem__(self, index: slice) -> Ranking: ...
    def __getitem__(self, index: int | slice) -> RankedDocument | Ranking:
        if isinstance(index, slice):
            return replace(self, hits=self.hits[index])
        return self.hits[index]

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return one dict a hit, as :meth:`RankedDocument.to_dict` makes them."""
        return [hit.to_dict() for hit in self.hits]

    def to_pandas(self) -> pandas.DataFrame:
        """Return a data frame with one row a hit, columns as the keys of :meth:`to_dicts`.

        Raises:
            MissingDependencyError: If pandas is not installed.
        """
        require("Ranking.to_pandas()", "pandas", "pandas")
        import pandas

        rows = self.to_dicts()
        columns = dict.fromkeys(["rank", "index", "score", "id", "text", "metadata"])
        return pandas.DataFrame(rows, columns=[*(columns | dict.fromkeys(name for row in rows for name in row))])

    def __str__(self) -> str:
        lines = []
        for hit in self.hits:
            score = "" if hit.score is None else f"{hit.score:.4f}"
            lines.append(f"{hit.rank:>4}  {score:>8}  {_excerpt(hit.document.text, 80)}")
        return "\n".join([repr(self), *lines])

    def __repr__(self) -> str:
        state = ", degraded" if self.degraded else ""
        return f"<Ranking of {len(self.hits)} documents by {self.model}{state}>"

    def _repr_html_(self) -> str:
        """Return an HTML table for notebooks; everything in it is escaped."""
        rows = "".join(
            f"<tr><td>{hit.rank}</td><td>{hit.index}</td><td>{_shown(hit.score)}</td>"
            f"<td style='text-align:left'>{html.escape(_excerpt(hit.document.text))}</td></tr>"
            for hit in self.hits
        )
        notes = "".join(f"<p><em>{html.escape(warning)}</em></p>" for warning in self.warnings)
        return scorable(
            f"<p><strong>{html.escape(self.query)}</strong> &middot; {html.escape(self.model)}</p>{notes}"
            "<table><thead><tr><th>rank</th><th>index</th><th>score</th><th>text</th></tr></thead>"
            f"<tbody>{rows}</tbody></table>"
        )


def _shown(score: float | None) -> str:
    return "&ndash;" if score is None else f"{score:.4f}"


def _excerpt(text: str, limit: int = 200) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
