"""Training of rirf's reasoners and restorers: data, networks, objectives, the command ``train``.

Importing the package pulls no torch; its modules do.
"""

__all__: list[str] = []
