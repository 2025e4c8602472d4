"""Prune the base model -> models/pruned. The structure picks the room: block, weight, layer or channel.

A room's `__init__.py` says what it takes, its `pruning.py` does it. What several rooms share lies beside them.
"""
