"""The widths that a module may keep under `prune.round_to` and `prune.layout`."""

from stages.common.errors import UserError
from stages.models.prunable import Prunable
from stages.prune.params import PruneParams


def allowed_widths(module: Prunable, params: PruneParams, hidden_size: int) -> list[int]:
    """Return the numbers of units that `module` may keep, descending; its present number is first if it is allowed.

    MLPs keep multiples of `round_to`, and experts of EXPERT_STEP. Under `layout: uniform` the query heads kept divide
    the hidden size, which transformers' LlamaConfig wants. Raises UserError for an MLP narrower than that.
    """
    if module.kind == "mlp":
        step = max(params.round_to, module.step)  # both are powers of 2
        widest = module.units // step * step
        if not widest and step > params.round_to:
            raise UserError(f"{module.name} has {module.units} channels; expected at least {step}, in which experts go")
        if not widest:
            raise UserError(
                f"prune.round_to = {params.round_to} is not allowed, since {module.name} has {module.units} channels; "
                "expected one of: 1, 8, 32, 64, 256, at most the width of the MLPs"
            )
        return list(range(widest, 0, -step))
    heads = module.output.in_features // module.width // module.units  # query heads of one unit
    fits = 1 if params.layout == "free" else hidden_size
    return [units for units in range(module.units, 0, -1) if fits == 1 or fits % (units * heads) == 0]


def check_layout(params: PruneParams, modules: list[Prunable], layers: int) -> None:
    """Raise UserError if `layout: uniform` is asked for where layers could not all end alike.

    They can if each of the two ranges is null or holds every layer, and all layers of `modules` are alike by now.
    """
    if params.layout == "free":
        return
    for key in ("attention_layers", "mlp_layers"):
        if getattr(params, key) not in (None, [0, layers]):
            raise UserError(
                f"prune.{key} = {getattr(params, key)} is not allowed with prune.layout = uniform, which prunes all "
                f"layers alike; expected [0, {layers}] or null"
            )
    for kind in ("attention", "mlp"):
        units = {module.units for module in modules if module.kind == kind}
        if len(units) > 1:
            raise UserError(
                f"prune.layout = uniform is not allowed for a model whose layers differ: their {kind} has "
                f"{', '.join(map(str, sorted(units)))} units; expected free"
            )
