"""Generated text: the batches of tasks that generate, and the continuations of fixed prompts."""

from lm_eval.api.instance import Instance
from lm_eval.models.utils import normalize_gen_kwargs
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stages.common.errors import UserError
from stages.common.generation import greedy
from stages.common.progress import progress
from stages.common.text import to_continue


def generation_batches(
    requests: list[Instance], lengths: list[int], most_new: int, context: int, budget: int
) -> list[tuple[list[int], int]]:
    """Return batches of requests with equal settings and similar lengths, the longest first.

    A batch is (indices, batch size). Its tokens, including those to be generated, stay within `budget`, unless it
    is one request. lengths: of the prompts in tokens. most_new: tokens to generate if the task sets no limit.
    context: of the model. Raises UserError if a task generates more tokens than the context holds.
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
                "remove the task from evaluate.tasks"
            )
        left = sorted(group, key=lambda index: -lengths[index])
        while left:
            rows = max(1, budget // min(context, lengths[left[0]] + new))
            parts.append((left[:rows], rows))
            left = left[rows:]
    return parts


def continuations(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[str], new_tokens: int
) -> list[dict[str, str]]:
    """Return each prompt with its greedy continuation of at most `new_tokens` tokens."""
    # One prompt at a time: padding a batch would change the last bits of the others.
    return [
        {"prompt": prompt, "continuation": greedy(model, tokenizer, to_continue(tokenizer, prompt), new_tokens)}
        for prompt in progress(prompts, "samples")
    ]
