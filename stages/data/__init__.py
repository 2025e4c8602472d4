"""Corpora, instruction data and evaluation tasks."""
