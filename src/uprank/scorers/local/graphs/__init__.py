"""ONNX graphs of known encoders, built from ``config.json`` and the weights: no torch, no tracing."""
