"""Write models for other engines, check each and describe it: -> models/export."""
