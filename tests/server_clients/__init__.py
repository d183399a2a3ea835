"""Other packages' rerank clients, each called the way its own users call it.

They live in an environment of their own, see ``clients-requirements.txt``: that of ``make clients``, or the one whose
Python is named by the environment variable ``UPRANK_CLIENTS_PYTHON``. The tests talk to them through ``environment``
alone; ``python -m server_clients`` is what runs there.
"""
