"""What recovery won back of the log-perplexity that pruning lost: first on texts of other domains than the tuning's.

On the text that it was tuned on, or one like it, a model gets better whether it was pruned or not: that share is
adaptation as well.
"""

import math
from dataclasses import dataclass
from typing import Any

from analysis.estimates import Estimate
from analysis.results import Metrics


@dataclass(frozen=True)
class Recovery:
    """The share of the log-perplexity lost by pruning that tuning won back on one text."""

    text: str
    own_domain: bool  # the text is of the domain that the model was tuned on
    share: Estimate
    # Without what tuning alone does: by how much less the tuned model lags behind the control, the base tuned alike,
    # than the pruned model lags behind the base.
    net: Estimate | None = None

    @property
    def won_by(self) -> str:
        """What wins it back."""
        return won_by(self.own_domain)

    def metrics(self) -> Metrics:
        """Return the shares by the names of metrics/details/report.json."""
        key = share_key(self.text)
        return self.share.metrics(key) | (self.net.metrics(f"{key}_net") if self.net else {})


def won_by(own_domain: bool) -> str:
    """Return what wins back log-perplexity on a text."""
    return "recovery and adaptation to the text" if own_domain else "recovery"


def share_key(text: str) -> str:
    """Return the key of metrics/details/report.json that holds the share won back on `text`."""
    return f"tuned_{text}_log_ppl_recovered"


def other_domains_first(texts: list[str], own_domain: str | None) -> list[str]:
    """Return the texts with `own_domain`, that of the text the model was tuned on, last."""
    return sorted(texts, key=lambda name: (name == own_domain, name))


def read_recovery(report: dict[str, Any], text: str) -> Recovery | None:
    """Return the share on `text` that metrics/details/report.json (`report`) holds; None where nothing was lost."""
    key = share_key(text)
    if key not in report:
        return None
    share = Estimate(report[key], *(report.get(f"{key}_{bound}", math.nan) for bound in ("low", "high")))
    return Recovery(text, text == report.get("own_domain"), share)


def share_text(share: Estimate, confidence: float) -> str:
    """Return a share in percent with its interval, as a sentence says it."""
    value, low, high = (100 * each for each in (share.value, share.low, share.high))
    return f"{value:.1f} %" + (f" ({100 * confidence:g} % interval {low:.1f} to {high:.1f})" if share.bounded else "")


def recovered_metric(recoveries: list[Recovery], texts: list[str], own_domain: str | None) -> Metrics:
    """Return `<text>_recovered`, the share on the first text of another domain, on the own where there is no other."""
    first = other_domains_first(texts, own_domain)[:1]
    return {f"{each.text}_recovered": each.share.value for each in recoveries if each.text in first}


def recovered_sentence(report: dict[str, Any], texts: list[str]) -> str:
    """Return the same in words; nothing where nothing was lost or measured. `report`: metrics/details/report.json."""
    for text in other_domains_first(texts, report.get("own_domain"))[:1]:
        if recovery := read_recovery(report, text):
            share = share_text(recovery.share, report["confidence"])
            return f"{recovery.won_by} won back {share} of the log-perplexity that pruning lost on {text}"
    return ""
