"""Write models for other engines, check each, and write its card: -> models/export."""
