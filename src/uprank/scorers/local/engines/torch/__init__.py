"""Models that torch computes: on any device, without padding where the model's family is known."""

from uprank.scorers.local.engines.torch.devices import best_half
from uprank.scorers.local.engines.torch.logits import Logits
from uprank.scorers.local.engines.torch.runner import TorchPairRunner

__all__ = ["Logits", "TorchPairRunner", "best_half"]
