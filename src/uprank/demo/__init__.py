"""`uprank demo`: rerank the documentation of Python's own standard library, in both frameworks."""
