"""The branching harness: lm-eval's HFLM, but tokens that several requests share are encoded once."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from lm_eval.api.instance import Instance
from lm_eval.api.task import Task
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import _add_special_kwargs, has_bos_prefix
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stages.common import processes
from stages.common.errors import UserError
from stages.common.progress import Bar
from stages.common.text import without_ending
from stages.evaluate.generation import generation_batches
from stages.evaluate.head import sliced_logits
from stages.evaluate.resume import Kept
from stages.evaluate.tally import Tally
from stages.evaluate.trees import Tree, batches, plant, stack
from stages.models.config import SUPPORTED_MODEL_TYPES, rope_settings
from stages.models.parts import Head

UNBRANCHED = 32  # requests that HFLM scores in one call
Request = tuple[tuple[str, str], list[int], list[int]]  # (context, continuation), context tokens, continuation tokens
Result = tuple[float, bool]  # summed log-probability of the continuation, whether it is the greedy one


class BranchingLM(HFLM):
    """HFLM that encodes each distinct context once, its answers after it as branches, and needs no padding for them.

    The vocabulary is scored only at the positions that predict an answer's tokens. Log-likelihoods are those of HFLM
    but for the rounding of a different order of summation. A model whose attention cannot be given such a mask, or a
    sequence longer than its attention's sliding window, is left to HFLM itself.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_tokens: int):
        """Wrap `model`; `batch_tokens` bounds the tokens of one forward pass.

        Log-softmax is taken in float32 whatever the model's dtype: half precision makes ties of different answers. HFLM
        would score an EOS that the tokenizer appends, and take it for the end of a prompt; here none is appended.
        """
        # HFLM's cache of logits mixes up positions where one text is split into context and answer at two places.
        super().__init__(
            model,
            tokenizer=without_ending(tokenizer),
            batch_size=1,
            softmax_dtype=torch.float32,
            logits_cache=False,
            # HFLM would switch the caller's autocast off.
            mixed_precision_dtype=torch.bfloat16 if torch.is_autocast_enabled(model.device.type) else None,
        )
        if self.tokenizer.pad_token_id >= model.config.vocab_size:  # HFLM's, of a tokenizer that has none to pad with
            self.tokenizer.pad_token_id = 0
        self.batch_tokens = batch_tokens
        self.batch_size_per_gpu = max(1, batch_tokens // self.max_length)
        self.encoded: dict[str, list[int]] = {}
        self.tasks: dict[str, Task] = {}
        self.kept, self.tally = Kept(), Tally({}, [])

    def begin(self, tasks: dict[str, Task], kept: Kept) -> None:
        """Take the next requests as those of `tasks`, by name, whose batches are kept in `kept`."""
        self.tasks, self.kept = tasks, kept

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[Result]:
        """Encode all texts in one call, each distinct one once, and score the continuations."""
        contexts = {context.rstrip() for context, _ in (request.args for request in requests)}
        texts = sorted(contexts | {"".join(request.args) for request in requests} - {""})
        # Those that begin with a BOS of their own are left to HFLM, which adds no second one.
        bos = self.tokenizer.decode(self.prefix_token_id) if self.prefix_token_id is not None else None
        texts = [text for text in texts if not has_bos_prefix(text, bos)]
        options = _add_special_kwargs(None, self.add_bos_token)
        self.encoded = dict(zip(texts, self.tokenizer(texts, **options)["input_ids"], strict=True)) if texts else {}
        self.tally = Tally(self.tasks, requests)
        return self._loglikelihood_tokens([self.encode(request) for request in requests], disable_tqdm)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Return the log-likelihood of each whole text, from windows as HFLM cuts them."""
        parts = [self.windows(request) for request in requests]
        self.tally = Tally({}, [])
        results = iter(self._loglikelihood_tokens([window for part in parts for window in part], disable_tqdm))
        return [sum(next(results)[0] for _ in part) for part in parts]

    def windows(self, request: Instance) -> list[Request]:
        """Return a text's windows of at most the model's context, each token predicted once."""
        (text,) = request.args
        (first,) = self.prefix(f"task {request.task_name}, question {request.doc_id}")
        windows = get_rolling_token_windows(self.tok_encode(text), first, self.max_length, context_len=1)
        return [(("", ""), *make_disjoint_window(window)) for window in windows]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Return HFLM's continuations, in batches of requests with equal settings and similar lengths."""
        kept, self.kept = self.kept, Kept()
        lengths = [len(self.tok_encode(request.args[0])) for request in requests]
        parts = generation_batches(requests, lengths, self.max_gen_toks, self.max_length, self.batch_tokens)
        mine = processes.share(parts)
        done = sum(map(len, kept.results))
        with Bar(" ".join(["task", *self.tasks]), sum(len(part) for part, _ in mine), done) as bar:
            for part, rows in mine[len(kept.results) :]:
                torch.manual_seed(part[0])  # where a task samples: a run that was interrupted draws as one that was not
                self.batch_size_per_gpu = rows
                kept.add(super().generate_until([requests[index] for index in part], disable_tqdm=True))
                bar.advance(len(part), "")
        self.batch_size_per_gpu = max(1, self.batch_tokens // self.max_length)
        order = [index for part, _ in parts for index in part]
        written = dict(zip(order, (text for texts in kept.collect() for text in texts), strict=True))
        return [written[index] for index in range(len(requests))]

    def encode(self, request: Instance) -> Request:
        """Return the tokens of a request, split as HFLM splits them.

        Raises UserError where HFLM fails an assertion: where context or continuation has no token of its own, or a
        continuation is longer than the model's context.
        """
        context, continuation = request.args
        question = f"task {request.task_name}, question {request.doc_id}"
        if context:
            before, answer = self._encode_pair(context, continuation)
        else:
            before, answer = self.prefix(question), self.tok_encode(continuation, add_special_tokens=False)
            answer = answer[1:] if answer[:1] == before else answer
        if not before:
            raise UserError(f"{question}: its prompt {context!r} has no token; remove the task from evaluate.tasks")
        if not answer:
            raise UserError(
                f"{question}: the answer {continuation!r} has no tokens of its own, since the tokenizer "
                "merges it into the prompt; remove the task from evaluate.tasks"
            )
        if len(answer) > self.max_length:
            raise UserError(
                f"{question}: an answer of {len(answer)} tokens exceeds the model's context of {self.max_length}; "
                "take the task out of evaluate.tasks"
            )
        return (context, continuation), before, answer

    def prefix(self, question: str) -> list[int]:
        """Return the token before a continuation without a context: the tokenizer's BOS, or its EOS."""
        if self.prefix_token_id is None:
            raise UserError(
                f"{question}: its prompt is empty, and the tokenizer has neither a BOS nor an EOS token to begin with; "
                "take the task out of evaluate.tasks"
            )
        return [self.prefix_token_id]

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, left_truncate_len: int | None = None, **kwargs
    ) -> list[int]:
        """Return HFLM's encoding of `string`, looked up where it is known."""
        if add_special_tokens is None and left_truncate_len is None and string in self.encoded:
            return self.encoded[string]
        if add_special_tokens is None and self.prefix_token_id is None:  # HFLM would compare the text with that token's
            return self.tokenizer.encode(string, **_add_special_kwargs(None, self.add_bos_token))
        return super().tok_encode(string, add_special_tokens, left_truncate_len, **kwargs)

    def tok_decode(self, tokens: Any, skip_special_tokens: bool = True) -> str | None:
        """Return HFLM's decoding; None without a token: HFLM asks for the text of an EOS that there may not be."""
        return None if tokens is None else super().tok_decode(tokens, skip_special_tokens)

    def _loglikelihood_tokens(
        self, requests: list[Request], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[Result]:
        """Return per request the summed log-probability of its continuation, and whether that is the greedy one."""
        kept, self.kept = self.kept, Kept()
        for index, *result in (each for batch in kept.results for each in batch):
            self.tally.add(index, tuple(result))
        done = sum(map(len, kept.results))
        with Bar(" ".join(["task", *self.tasks]), len(requests) // processes.size(), done) as bar:
            for score in processes.share(self.batches(requests))[len(kept.results) :]:
                scored = score()
                kept.add([[index, *result] for index, result in scored])
                for index, result in scored:
                    self.tally.add(index, result)
                bar.advance(len(scored), str(self.tally))
        results = {index: (total, greedy) for batch in kept.collect() for index, total, greedy in batch}
        return [results[index] for index in range(len(requests))]

    def batches(self, requests: list[Request]) -> list[Callable[[], list[tuple[int, Result]]]]:
        """Return functions that score the requests, one per batch; each returns (index, result) of its requests."""
        # As HFLM does: what is too long is cut from the left, and the last token predicts nothing.
        inputs = [(context + answer)[-(self.max_length + 1) :][:-1] for _, context, answer in requests]
        if can_branch(self.model, max(map(len, inputs), default=0)):
            trees = plant(inputs, [len(answer) for _, _, answer in requests], self.batch_tokens)
            return [partial(self.score, batch, requests) for batch in batches(trees, self.batch_tokens)]
        order = sorted(range(len(requests)), key=lambda index: (-len(inputs[index]), inputs[index]))
        parts = [order[start : start + UNBRANCHED] for start in range(0, len(order), UNBRANCHED)]
        return [partial(self.score_unbranched, part, requests) for part in parts]

    def score_unbranched(self, part: list[int], requests: list[Request]) -> list[tuple[int, Result]]:
        """Return (index, result) of the requests with the indices `part`, by HFLM."""
        results = super()._loglikelihood_tokens([requests[index] for index in part], disable_tqdm=True)
        return list(zip(part, results, strict=True))

    @torch.no_grad()
    def score(self, trees: list[Tree], requests: list[Request]) -> list[tuple[int, Result]]:
        """Return (index, result) of every request in `trees`, from one forward pass."""
        tokens, depths, visible = (each.to(self.device) for each in stack(trees))
        # Additive, since eager attention does not accept a boolean mask.
        mask = torch.zeros(visible.shape, dtype=self.model.dtype, device=self.device)
        mask.masked_fill_(~visible, torch.finfo(mask.dtype).min)
        hidden = self.model.get_decoder()(
            input_ids=tokens, attention_mask=mask[:, None], position_ids=depths, use_cache=False
        ).last_hidden_state

        leaves = [(index, row, nodes) for row, tree in enumerate(trees) for index, nodes in tree.leaves]
        flat = [row * tokens.shape[1] + node for _, row, nodes in leaves for node in nodes]
        wanted = torch.tensor([token for index, _, _ in leaves for token in requests[index][2]], device=self.device)
        # Answers of one context ask for the same last node of it.
        nodes, where = torch.unique(torch.tensor(flat, device=self.device), return_inverse=True)
        values = torch.empty(len(wanted), dtype=torch.float64, device=self.device)
        greedy = torch.empty(len(wanted), dtype=torch.bool, device=self.device)
        for part, logits in sliced_logits(Head(self.model), hidden.flatten(0, 1)[nodes]):
            asked = (where >= part.start) & (where < part.stop)
            rows, targets = where[asked] - part.start, wanted[asked]
            values[asked] = F.log_softmax(logits, dim=-1, dtype=self.softmax_dtype)[rows, targets].double()
            greedy[asked] = logits.argmax(-1)[rows] == targets

        lengths = [len(requests[index][2]) for index, _, _ in leaves]
        sums = [part.sum().item() for part in values.cpu().split(lengths)]
        best = [part.all().item() for part in greedy.cpu().split(lengths)]
        return [(index, (total, one)) for (index, _, _), total, one in zip(leaves, sums, best, strict=True)]


def can_branch(model: PreTrainedModel, longest: int) -> bool:
    """Return whether `model` accepts a custom attention mask and position ids, and depends on nothing else.

    `longest` is the number of tokens of the longest sequence: a sliding window that holds them all hides none.
    """
    return (
        model.config.model_type in SUPPORTED_MODEL_TYPES
        and model.config._attn_implementation in ("eager", "sdpa")
        # These rotate by the length of the row, not by the position alone.
        and not {each.get("rope_type") for each in rope_settings(model.config)} & {"dynamic", "longrope"}
        and longest <= (getattr(model.config, "sliding_window", None) or longest)
    )
