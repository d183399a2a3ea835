"""What the log says of an error: its kind and where it came from, and nothing that a request held."""

from __future__ import annotations

import logging
import traceback

from uprank.errors import ConfigurationError, MissingDependencyError, ModelLoadError, ServiceError
from uprank.server.refusals import Refusal, refusal_of

__all__ = ["kind_of", "log_failure", "logged_refusal", "trace_of"]

logger = logging.getLogger("uprank.server")

_MOST_CAUSES = 8
# Worded from settings and files, before any request; the rest may quote one.
_ABOUT_THE_SETUP = (ConfigurationError, MissingDependencyError, ModelLoadError)


def logged_refusal(error: Exception, request_id: str, where: str) -> Refusal:
    """What the client is told of an error; the log is told more.

    Args:
        error: Of a reranker, or of the server itself.
        request_id: Of the request.
        where: What failed, e.g. the model's id.
    """
    refusal = refusal_of(error)
    if refusal.code == "internal_error":
        log_failure(error, request_id, where)
    else:
        level = logging.ERROR if refusal.status >= 500 else logging.INFO
        logger.log(level, "%s: %s answered with %s: %s", request_id, where, refusal.code, kind_of(error))
    return refusal


def log_failure(error: BaseException, request_id: str, where: str) -> None:
    """Log an error that nobody foresaw, with the lines of code that it came through.

    Args:
        error: Any; its words are left out, since they may quote a document.
        request_id: Of the request.
        where: What failed.
    """
    logger.error("%s: %s failed: %s\n%s", request_id, where, kind_of(error), trace_of(error))


def kind_of(error: BaseException) -> str:
    """Name an error, with what is known of it beside its words; those of the server's own set-up are shown."""
    kind = type(error).__name__
    if isinstance(error, ServiceError):
        known = (
            ("", error.model),
            ("HTTP ", error.status),
            ("its request id ", error.request_id),
        )
        told = ", ".join(f"{name}{value}" for name, value in known if value is not None)
        return f"{kind} ({told})" if told else kind
    return f"{kind}: {error}" if isinstance(error, _ABOUT_THE_SETUP) else kind


def trace_of(error: BaseException) -> str:
    """The lines of code that an error and its causes came through, the first cause first, without their words."""
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain and len(chain) < _MOST_CAUSES:
        chain.append(current)
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    parts = [f"{''.join(traceback.format_tb(one.__traceback__))}{type(one).__name__}" for one in reversed(chain)]
    return "\nwhich led to\n".join(parts)
