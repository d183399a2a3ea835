"""A strict OpenAI-compatible chat server on loopback; how to use it is told in ``chat_server``."""
