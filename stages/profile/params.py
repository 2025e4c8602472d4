"""Section `profile` of params.yaml."""

from stages.common.params import Positive, Section


class ProfileParams(Section):
    """How much is computed for one measurement, and how often."""

    sequence_length: Positive
    decode_tokens: Positive
    repetitions: Positive
