"""Scorers that run in this process: nothing leaves the machine."""
