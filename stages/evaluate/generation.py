"""Which texts a model continues at once."""

from lm_eval.api.instance import Instance
from lm_eval.models.utils import normalize_gen_kwargs

from stages.common.errors import UserError


def alike(
    requests: list[Instance], lengths: list[int], most_new: int, context: int, budget: int
) -> list[tuple[list[int], int]]:
    """Return parts of the requests that have one setting and are alike in length, the longest first.

    A part is (indices, how many at once). Its tokens, those to be generated included, stay within `budget`, unless it
    is one request. lengths: of the prompts in tokens. most_new: tokens that are generated where a task says nothing.
    context: of the model. Raises UserError where a task generates more tokens than that holds.
    """
    groups: dict[str, list[int]] = {}
    for index, request in enumerate(requests):
        groups.setdefault(repr(request.args[1]), []).append(index)
    parts = []
    for group in groups.values():
        request = requests[group[0]]
        new = normalize_gen_kwargs(request.args[1], most_new)["max_gen_toks"]
        if new >= context:
            raise UserError(
                f"task {request.task_name} generates {new} tokens, and the model's context is {context}; "
                "take the task out of evaluate.tasks"
            )
        left = sorted(group, key=lambda index: -lengths[index])
        while left:
            rows = max(1, budget // min(context, lengths[left[0]] + new))
            parts.append((left[:rows], rows))
            left = left[rows:]
    return parts
