"""Prune the base model: units, criteria, allocation, surgery -> models/pruned."""
