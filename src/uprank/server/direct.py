"""Routes whose requests are read by their own function."""

from __future__ import annotations

from starlette.routing import Match, Route
from starlette.types import Scope

__all__ = ["DirectRoute"]


class DirectRoute(Route):
    """A route that hands a request to its function as it is, without what FastAPI would look for in it first.

    As FastAPI's routes do, it notes itself in the scope of a request that it takes.
    """

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether a request is its; see :class:`starlette.routing.Route`."""
        # There are a dozen routes, asked one by one: those that cannot be meant cost no search with a pattern.
        if "{" not in self.path and scope["type"] == "http" and not scope["path"].endswith(self.path):
            return Match.NONE, {}
        match, found = super().matches(scope)
        if match is not Match.NONE:
            found["route"] = self
        return match, found
