"""Prune the base model -> models/pruned. Each structure has a folder: block, weight, rank, layer, channel, expert.

Its `__init__.py` lists the choices that the structure supports, and its `pruning.py` prunes. Modules that several
structures share are in this folder.
"""
