"""The model as lm-eval sees it: HFLM, with the tokens that several requests share encoded once."""

import torch
import torch.nn.functional as F
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import _add_special_kwargs, has_bos_prefix
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stages.common.model_config import SUPPORTED_MODEL_TYPES
from stages.evaluate.trees import Tree, batches, plant, stack

Request = tuple[tuple[str, str], list[int], list[int]]  # (context, continuation), context tokens, continuation tokens


class BranchingLM(HFLM):
    """HFLM that encodes each distinct context once, its answers behind it as branches, and needs no padding for them.

    The vocabulary is scored only at the positions that predict an answer's tokens. Log-likelihoods are those of HFLM
    but for the rounding of a different order of summation. A model whose attention cannot be given such a mask, or a
    sequence longer than its attention's sliding window, is left to HFLM itself.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_tokens: int):
        """Wrap `model`; `batch_tokens` bounds the tokens of one forward pass.

        Log-softmax is taken in float32 whatever the model's dtype: half precision makes ties of different answers.
        """
        super().__init__(model, tokenizer=tokenizer, batch_size=1, softmax_dtype=torch.float32)
        self.batch_tokens = batch_tokens
        self.batch_size_per_gpu = max(1, batch_tokens // self.max_length)
        self.encoded: dict[str, list[int]] = {}

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Encode all texts in one call, each distinct one once, before HFLM asks for them one by one."""
        contexts = {context.rstrip() for context, _ in (request.args for request in requests)}
        texts = sorted(contexts | {"".join(request.args) for request in requests} - {""})
        # Those that begin with a BOS of their own are left to HFLM, which adds no second one.
        texts = [text for text in texts if not has_bos_prefix(text, self.tokenizer.decode(self.prefix_token_id))]
        options = _add_special_kwargs(None, self.add_bos_token)
        self.encoded = dict(zip(texts, self.tokenizer(texts, **options)["input_ids"], strict=True)) if texts else {}
        return super().loglikelihood(requests, disable_tqdm)

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, left_truncate_len: int | None = None, **kwargs
    ) -> list[int]:
        """Return HFLM's encoding of `string`, looked up where it is known."""
        if add_special_tokens is None and left_truncate_len is None and string in self.encoded:
            return self.encoded[string]
        return super().tok_encode(string, add_special_tokens, left_truncate_len, **kwargs)

    def _loglikelihood_tokens(
        self, requests: list[Request], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        """Return per request the summed log-probability of its continuation, and whether that is the greedy one."""
        # As HFLM does: what is too long is cut from the left, and the last token predicts nothing.
        inputs = [(context + answer)[-(self.max_length + 1) :][:-1] for _, context, answer in requests]
        if not can_branch(self.model, max(map(len, inputs), default=0)):
            return super()._loglikelihood_tokens(requests, disable_tqdm, override_bs)
        trees = plant(inputs, [len(answer) for _, _, answer in requests], self.batch_tokens)
        results: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        with tqdm(total=len(requests), desc="log-likelihoods", disable=disable_tqdm, mininterval=1) as progress:
            for batch in batches(trees, self.batch_tokens):
                for index, result in self.score(batch, requests):
                    results[index] = result
                    if requests[index][0] is not None:  # rolling windows have no text
                        self.cache_hook.add_partial("loglikelihood", requests[index][0], result)
                    progress.update()
        return results

    @torch.no_grad()
    def score(self, trees: list[Tree], requests: list[Request]) -> list[tuple[int, tuple[float, bool]]]:
        """Return (index, result) of every request in `trees`, from one forward pass."""
        tokens, depths, visible = (each.to(self.device) for each in stack(trees))
        # Additive, since eager attention takes no boolean mask.
        mask = torch.zeros(visible.shape, dtype=self.model.dtype, device=self.device)
        mask.masked_fill_(~visible, torch.finfo(mask.dtype).min)
        hidden = self.model.get_decoder()(
            input_ids=tokens, attention_mask=mask[:, None], position_ids=depths, use_cache=False
        ).last_hidden_state

        leaves = [(index, row, nodes) for row, tree in enumerate(trees) for index, nodes in tree.leaves]
        flat = [row * tokens.shape[1] + node for _, row, nodes in leaves for node in nodes]
        targets = [token for index, _, _ in leaves for token in requests[index][2]]
        # Answers of one context ask for the same last node of it.
        nodes, where = torch.unique(torch.tensor(flat, device=self.device), return_inverse=True)
        logits = self.model.get_output_embeddings()(hidden.flatten(0, 1)[nodes])
        log_probabilities = F.log_softmax(logits, dim=-1, dtype=self.softmax_dtype)
        wanted = torch.tensor(targets, device=self.device)
        greedy = (log_probabilities.argmax(-1)[where] == wanted).tolist()
        lengths = [len(requests[index][2]) for index, _, _ in leaves]
        sums = [part.sum().item() for part in log_probabilities[where, wanted].double().cpu().split(lengths)]
        results, start = [], 0
        for (index, _, _), length, total in zip(leaves, lengths, sums, strict=True):
            results.append((index, (total, all(greedy[start : start + length]))))
            start += length
        return results


def can_branch(model: PreTrainedModel, longest: int) -> bool:
    """Return whether `model` takes a mask and positions of its own, and computes no more than from them.

    `longest` is the number of tokens of the longest sequence: a sliding window that holds them all hides none.
    """
    scaling = getattr(model.config, "rope_parameters", None) or {}
    return (
        model.config.model_type in SUPPORTED_MODEL_TYPES
        and model.config._attn_implementation in ("eager", "sdpa")
        # These rotate by the length of the row, not by the position alone.
        and scaling.get("rope_type", "default") not in ("dynamic", "longrope")
        and longest <= (getattr(model.config, "sliding_window", None) or longest)
    )
