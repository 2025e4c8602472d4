"""The one exception a stage raises for what its user can put right."""


class UserError(Exception):
    """A mistake in params, data or a checkpoint. Its text is one line that says what is wrong and what is allowed."""
