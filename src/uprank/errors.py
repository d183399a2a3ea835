"""Every error that uprank raises.

::

    UprankError
    ├── InvalidInputError (ValueError)         the query, a document, top_n or threshold cannot be used
    │   └── InvalidDocumentError (TypeError)     a document is not text, a Document or a mapping with text
    ├── ConfigurationError (ValueError)        the reranker was set up in a way that cannot work
    │   ├── UnknownModelError                    no scheme or preset of that name
    │   └── ScoreKindError                       the scores do not mean what was asked of them
    ├── MissingDependencyError (ImportError)   an extra is not installed
    └── ScorerError                            the scorer failed, whatever the input
        ├── ModelLoadError                       the model could not be loaded
        │   └── ModelIntegrityError                its weights are not the published ones
        ├── InvalidScoresError                   the scorer's answer cannot be used
        ├── QueryTooLongError (ValueError)       the query does not fit the model's window
        ├── OverloadedError                      more calls wait for a local model than it takes
        ├── AllModelsFailedError                 no model of a fallback chain answered
        │   └── QueryTooLongForAllError              the query fits none of them; a QueryTooLongError too
        └── ServiceError                         a service that scores could not be used
            ├── AuthenticationError                the key is missing, wrong, or may not do this
            ├── BillingError                       the account has no credit left
            ├── RateLimitError                     too many requests, also after waiting
            ├── RequestTooLargeError               more documents or tokens than the service takes
            ├── RequestRefusedError                the service refused the request for another reason
            ├── ServerError                        the service failed
            ├── ConnectionFailedError              no connection, or it broke
            ├── DeadlineExceededError (TimeoutError) no answer in time
            ├── BadReplyError                      the answer cannot be used; an InvalidScoresError too
            ├── ContentRefusedError                the model, or a filter before it, refused to answer
            └── CanaryError                        the service orders an obvious pair wrongly

``on_error="passthrough"`` applies to :class:`ScorerError` and its children alone: mistakes in the
input or in the set-up are always raised.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uprank.scorers.evidence import Attempt

__all__ = [
    "AllModelsFailedError",
    "AuthenticationError",
    "BadReplyError",
    "BillingError",
    "CanaryError",
    "ConfigurationError",
    "ConnectionFailedError",
    "ContentRefusedError",
    "DeadlineExceededError",
    "InvalidDocumentError",
    "InvalidInputError",
    "InvalidScoresError",
    "MissingDependencyError",
    "ModelIntegrityError",
    "ModelLoadError",
    "OverloadedError",
    "QueryTooLongError",
    "QueryTooLongForAllError",
    "RateLimitError",
    "RequestRefusedError",
    "RequestTooLargeError",
    "ScoreKindError",
    "ScorerError",
    "ServerError",
    "ServiceError",
    "UnknownModelError",
    "UprankError",
]


class UprankError(Exception):
    """Base of every error raised by uprank."""


class InvalidInputError(UprankError, ValueError):
    """The query, a document or an option of this call cannot be used."""


class InvalidDocumentError(InvalidInputError, TypeError):
    """A document is not a string, a ``Document`` or a mapping with a string under ``"text"``."""


class ConfigurationError(UprankError, ValueError):
    """The reranker was set up in a way that cannot work."""


class UnknownModelError(ConfigurationError):
    """The model name has no known scheme and is no preset."""


class ScoreKindError(ConfigurationError):
    """What was asked of the scores does not fit what they mean."""


class MissingDependencyError(UprankError, ImportError):
    """A package that this backend needs is not installed.

    Args:
        feature: What needs it, e.g. ``'model "embedded"'``.
        extra: The extra of uprank that brings it.
        packages: The missing packages, by import name.
    """

    def __init__(self, feature: str, extra: str, packages: tuple[str, ...]) -> None:
        self.feature = feature
        self.extra = extra
        self.packages = packages
        missing = ", ".join(packages)
        super().__init__(f'{feature} needs {missing}, not installed here. Run: pip install "uprank[{extra}]"')

    def __reduce__(self) -> tuple[type[MissingDependencyError], tuple[str, str, tuple[str, ...]]]:
        return type(self), (self.feature, self.extra, self.packages)


class ScorerError(UprankError):
    """The scorer failed. The cause, where there is one, is chained."""


class ModelLoadError(ScorerError):
    """The model could not be loaded."""


class ModelIntegrityError(ModelLoadError):
    """A file of the model does not have its published checksum; it was not loaded."""


class InvalidScoresError(ScorerError):
    """The scorer answered with something that is not one finite number per text."""


class QueryTooLongError(ScorerError, ValueError):
    """The query does not fit the model's window; for cross-encoders, half of it."""


class OverloadedError(ScorerError):
    """More calls wait for a model in this process than its ``max_queue`` allows; this one was not taken on."""


class AllModelsFailedError(ScorerError):
    """No model of a fallback chain answered. The error of the last one that was asked is its cause.

    Args:
        message: Names them all, and says why.
        attempts: One a model, in the order in which they were tried.
    """

    def __init__(self, message: str, attempts: tuple[Attempt, ...] = ()) -> None:
        super().__init__(message)
        self.attempts = attempts

    def __reduce__(self) -> tuple[type[AllModelsFailedError], tuple[str, tuple[Attempt, ...]]]:
        return type(self), (str(self), self.attempts)


class QueryTooLongForAllError(AllModelsFailedError, QueryTooLongError):
    """The query fits none of the models: the caller's to mend, and so of that class too."""


class ServiceError(ScorerError):
    """A service that scores, hosted or self-hosted, could not be used.

    The message holds all of the following that is known.

    Args:
        message: What was wrong and what to do.
        provider: The scheme, e.g. ``"jina"``.
        model: The model's full name, e.g. ``"jina:jina-reranker-v2-base-multilingual"``.
        status: The HTTP status, where there was a reply.
        request_id: The service's own number for the request, for its support.
    """

    def __init__(
        self,
        message: str,
        *,
        provider: str | None = None,
        model: str | None = None,
        status: int | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.provider = provider
        self.model = model
        self.status = status
        self.request_id = request_id

    def __reduce__(self) -> tuple[Callable[..., ServiceError], tuple[object, ...]]:
        return _remake, (type(self), self.args, self.__dict__)  # keyword arguments are in the attributes


class AuthenticationError(ServiceError):
    """The key is missing, wrong, expired, or may not use this model."""


class BillingError(ServiceError):
    """The account has no credit left, or no means of payment."""


class RateLimitError(ServiceError):
    """Too many requests for the time being, also after the waits that the deadline allowed.

    Args:
        message: As for :class:`ServiceError`, which explains ``context`` too.
        retry_after: Seconds that the service asked to wait; ``None`` where it did not say.
    """

    def __init__(self, message: str, *, retry_after: float | None = None, **context: Any) -> None:
        super().__init__(message, **context)
        self.retry_after = retry_after


class RequestTooLargeError(ServiceError):
    """More documents, tokens or bytes than the service takes at once.

    Args:
        message: As for :class:`ServiceError`, which explains ``context`` too.
        sent: What was, or would have been, sent, e.g. ``"2000 documents, 81920 bytes"``.
        allowed: What is allowed, as far as it is known.
    """

    def __init__(self, message: str, *, sent: str | None = None, allowed: str | None = None, **context: Any) -> None:
        super().__init__(message, **context)
        self.sent = sent
        self.allowed = allowed


class RequestRefusedError(ServiceError):
    """The service refused the request, e.g. because it knows no such model."""


class ServerError(ServiceError):
    """The service failed or is overloaded, also after the retries that the deadline allowed."""


class ConnectionFailedError(ServiceError):
    """No connection could be made, or it broke before the whole reply was there."""


class DeadlineExceededError(ServiceError, TimeoutError):
    """No answer in time: within ``timeout`` of one attempt, or within ``deadline`` of the whole call."""


class BadReplyError(ServiceError, InvalidScoresError):
    """The service answered, but not with one finite score for each document, nor with an order of them."""


class ContentRefusedError(ServiceError):
    """The model refused to answer, or the provider's filter stopped it."""


class CanaryError(ServiceError):
    """The service scores an obvious pair wrongly: it was probably started with the wrong template or weights."""


def _remake(cls: type[ServiceError], args: tuple[str], attributes: dict[str, object]) -> ServiceError:
    error = cls(*args)
    error.__dict__.update(attributes)
    return error
