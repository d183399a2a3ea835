"""Reranking by language models. The words a caller needs besides :class:`~uprank.scorers.LLMScorer`."""

from uprank.scorers.llm.budget import Budget, Price
from uprank.scorers.llm.chat import ChatCall, ChatModel, ChatRequest, Completion, Features, Message
from uprank.scorers.llm.planning import Plan, Range
from uprank.scorers.llm.probing import Probe
from uprank.scorers.llm.prompts import Example, Prompt
from uprank.scorers.llm.strategies import STRATEGIES

__all__ = [
    "STRATEGIES",
    "Budget",
    "ChatCall",
    "ChatModel",
    "ChatRequest",
    "Completion",
    "Example",
    "Features",
    "Message",
    "Plan",
    "Price",
    "Probe",
    "Prompt",
    "Range",
]
