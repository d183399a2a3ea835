"""What ``benchmarks/speed.py`` is made of: models, texts, contestants in their own processes, measures, reports."""
