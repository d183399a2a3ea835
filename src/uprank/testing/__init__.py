"""Tools to test code that reranks, without a network."""

from uprank.testing.transport import MockTransport, SentRequest

__all__ = ["MockTransport", "SentRequest"]
