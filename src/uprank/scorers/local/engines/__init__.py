"""What computes a local model: torch, ONNX Runtime or OpenVINO, behind one interface."""
