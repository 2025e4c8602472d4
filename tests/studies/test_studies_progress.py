"""What a sweep says about the time left."""

from studies.progress import Progress
from studies.study import Variant


def test_the_time_left_is_told_by_experiments_like_those_that_wait_and_not_by_the_base():
    base, *variants = (Variant("small", {}, {}, {}, models, (), {}) for models in (("base",), ("pruned",), ("tuned",)))
    progress = Progress(3, jobs=1)
    progress.finished(base, 300.0)
    assert progress.expected(variants[0]) is None
    progress.finished(variants[0], 30.0)
    assert progress.expected(variants[1], spent=10.0) == 20.0
    progress.finished(variants[1], 90.0)
    assert progress.expected(variants[1]) == 90.0
