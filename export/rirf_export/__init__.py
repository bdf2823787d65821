"""Export: checkpoints to ONNX graphs to a bundle, held to a parity constant on the way.

Importing the package pulls no torch; its modules do.
"""

__all__: list[str] = []
