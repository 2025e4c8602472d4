"""What several processes can prune together: statistics are sums over the calibration windows, which they share."""

from stages.common.errors import UserError
from stages.prune.block import REMOVE_WHOLE, budget
from stages.prune.params import PruneParams

# Their divergence is measured on the first windows alone, which only one process has.
ALONE = ("fisher", "sensitivity", "search", *REMOVE_WHOLE)


def check_shared(params: PruneParams, count: int) -> None:
    """Raise UserError where `count` processes cannot prune together as `params` say."""
    if count == 1:
        return
    chosen, calibration = params.chosen, params.calibration
    if chosen.allocation in ALONE:
        refuse(count, f"prune.allocation = {chosen.allocation}")
    if params.budget and budget.measure(params.budget) == "latency":
        refuse(count, f"prune.budget = {params.budget}, which each would measure differently")
    if calibration.windows < count:
        raise UserError(
            f"prune.calibration.windows = {calibration.windows} is less than run.processes = {count}; "
            f"expected {count} or more"
        )


def refuse(count: int, what: str) -> None:
    """Raise UserError for what takes a single process."""
    raise UserError(f"run.processes = {count} does not go with {what}; expected run.processes = 1")
