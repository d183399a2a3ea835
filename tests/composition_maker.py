"""Makes random specs of scorers made of scorers."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from composition_parts import ANSWERED, KINDS, LIKELY, RAISED, Fault, Leaf, Node, Spec
from uprank.errors import QueryTooLongError, ScorerError, ServerError

OF_CLASSES = ("sigmoid", "graded")
"""Kinds that a function cannot declare."""


class Maker:
    """Makes random specs.

    Args:
        random: What decides.
        faults: How likely a fault is in a leaf.
    """

    def __init__(self, random: Random, faults: float) -> None:
        self.random = random
        self.faults = faults
        self.made = 0

    def spec(self, depth: int, *, likely: bool = False) -> Spec:
        """A spec of at most this depth.

        Args:
            depth: Of parts within each other.
            likely: Whether it must have probabilities.
        """
        random = self.random
        if depth == 0 or random.random() < 0.25:
            return self.leaf(likely=likely)
        part = random.choice(["Fallback", "Fallback", "Cascade", "Cascade", "Fusion", "Fusion", "Wrapped"])
        return getattr(self, part.lower())(depth - 1, likely)

    def leaf(self, *, likely: bool, form: str | None = None) -> Leaf:
        random = self.random
        self.made += 1
        form = form or random.choice(["scorer", "scorer", "batch", "sync", "async"])
        kinds = LIKELY if likely else KINDS
        leaf = Leaf(
            f"m{self.made}",
            random.choice([kind for kind in kinds if form in ("scorer", "batch") or kind not in OF_CLASSES]),
            form,
            fault=self.fault() if random.random() < self.faults else None,
        )
        if form == "batch" and leaf.fault is not None:
            leaf = replace(leaf, fault=replace(leaf.fault, always=True))
        if form in ("sync", "async"):
            return replace(leaf, declared=likely or leaf.kind != "logit" or random.random() < 0.5)
        return replace(
            leaf,
            listwise=random.random() < 0.2,
            instructed=random.random() < 0.3,
            degraded=random.random() < 0.1,
        )

    def fault(self) -> Fault:
        random = self.random
        kind = random.choices(["raised", "answered", "misuse"], [6, 5, 0.3])[0]
        count = {"raised": len(RAISED), "answered": len(ANSWERED), "misuse": 1}[kind]
        return Fault((kind, random.randrange(count)), always=random.random() < 0.7)

    def members(self, depth: int, likely: bool, least: int = 2) -> tuple[Spec, ...]:
        return tuple(self.spec(depth, likely=likely) for _ in range(self.random.randint(least, 3)))

    def fallback(self, depth: int, likely: bool) -> Spec:
        options: dict[str, object] = {}
        members = self.members(depth, likely, 1)
        if self.random.random() < 0.2:
            options["on"] = {self.random.choice([ServerError, ScorerError, QueryTooLongError]): "raise"}
        if self.random.random() < 0.02 and isinstance(members[0], Leaf) and members[0].form == "scorer":
            options["deadline"] = 0.02
            members = (replace(members[0], fault=Fault(("hang", 0), always=True)), *members[1:])
        return Node("Fallback", members, options)

    def cascade(self, depth: int, likely: bool) -> Spec:
        random = self.random
        likely = likely or random.random() < 0.4
        members = self.members(depth, likely)
        keep = sorted((random.randint(1, 6) for _ in members[1:]), reverse=True)
        scores = "probability" if likely else "rank"
        policy = random.choice(["raise", "keep"])
        return Node("Cascade", members, {"keep": keep, "scores": scores, "on_stage_error": policy})

    def fusion(self, depth: int, likely: bool) -> Spec:
        random = self.random
        weighted = likely or random.random() < 0.4
        options: dict[str, object] = {"on_error": random.choice(["raise", "skip"])}
        options["retrieval_weight"] = 0.0 if likely else random.choice([0.0, 0.5, 1.0])
        members = self.members(depth, weighted, 1 if options["retrieval_weight"] else 2)
        options["method"] = "weighted" if weighted else "rrf"
        if random.random() < 0.5:
            options["weights"] = [random.choice([0.5, 1.0, 2.0]) for _ in members]
        return Node("Fusion", members, options)

    def wrapped(self, depth: int, likely: bool) -> Spec:
        """A leaf with some of a cache, passages and a calibrator around it."""
        random = self.random
        spec: Spec = self.leaf(likely=likely, form="scorer")
        if random.random() < 0.5:
            spec = Node("Cached", (spec,))
        if random.random() < 0.5:
            spec = self.passages(spec)
        if random.random() < 0.5:
            spec = Node("Calibrated", (spec,))
        return spec

    def passages(self, spec: Spec) -> Node:
        options: dict[str, object] = {"how": self.random.choice(["max_passage", "mean_top"]), "tokens": 16}
        if self.random.random() < 0.5:
            options["overlap"] = self.random.randint(0, 8)
        return Node("Passages", (spec,), options)
