"""Tools to test code that reranks, without a network. Each is loaded when it is first asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uprank.testing.chat import AskedQuestion, MockChatModel
    from uprank.testing.transport import MockTransport, SentRequest

__all__ = ["AskedQuestion", "MockChatModel", "MockTransport", "SentRequest"]

_HOMES = {"AskedQuestion": "chat", "MockChatModel": "chat", "MockTransport": "transport", "SentRequest": "transport"}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(f"uprank.testing.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
