"""Scorers that ask a service over HTTP, hosted or self-hosted."""
