"""Validate params.yaml before any other stage runs."""
