"""Vectors of documents: compared by MaxSim, kept in memory and on disk."""
