"""One class a library: how it is loaded and asked, as its own documentation says."""

from __future__ import annotations

from importlib import import_module

from speed_bench.adapters.base import Adapter, Options

__all__ = ["Adapter", "Options", "load"]

_HOMES = {
    "overlap": "overlap:Overlap",
    "uprank": "ours:UprankAdapter",
    "sentence-transformers": "cross_encoder:CrossEncoderAdapter",
    "flashrank": "flash_rank:FlashRankAdapter",
    "rerankers": "answer_ai:RerankersAdapter",
    "flagembedding": "flag:FlagAdapter",
}


def load(library: str, options: Options) -> Adapter:
    """Make the adapter of a library, its model loaded.

    Raises:
        Exception: Whatever the library raises, as where it is not installed or does not know an option.
    """
    module, name = _HOMES[library].split(":")
    made: type[Adapter] = getattr(import_module(f"speed_bench.adapters.{module}"), name)
    return made(options)
