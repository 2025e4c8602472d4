"""What recovery won back, in words: first on texts of another domain than the model was tuned on.

On the text that it was tuned on, or one like it, a model gets better whether it was pruned or not: that share is
adaptation as well.
"""

from typing import Any

from analysis.results import Metrics


def other_domains_first(sets: list[str], own_domain: str | None) -> list[str]:
    """Return the perplexity sets with `own_domain`, that of the text the model was tuned on, last."""
    return sorted(sets, key=lambda name: (name == own_domain, name))


def won_by(name: str, own_domain: str | None) -> str:
    """Return what wins back log-perplexity on set `name`."""
    return "recovery and adaptation to the text" if name == own_domain else "recovery"


def share_key(name: str) -> str:
    """Return the key of metrics/details/report.json that holds the share won back on set `name`."""
    return f"tuned_{name}_log_ppl_recovered"


def share_text(found: Metrics, key: str, confidence: float) -> str:
    """Return a share in percent with its interval, as a sentence says it."""
    text = f"{100 * found[key]:.1f} %"
    if f"{key}_low" not in found:
        return text
    low, high = 100 * found[f"{key}_low"], 100 * found[f"{key}_high"]
    return f"{text} ({100 * confidence:g} % interval {low:.1f} to {high:.1f})"


def recovered_metric(comparison: Metrics, sets: list[str], own_domain: str | None) -> Metrics:
    """Return `<set>_recovered`, the share on the first set of another domain, on the own where there is no other."""
    first = other_domains_first(sets, own_domain)[:1]
    return {f"{name}_recovered": comparison[share_key(name)] for name in first if share_key(name) in comparison}


def recovered_sentence(report: dict[str, Any], sets: list[str]) -> str:
    """Return the same in words; nothing where nothing was lost or measured.

    `report`: metrics/details/report.json.
    """
    for name in other_domains_first(sets, report.get("own_domain"))[:1]:
        if share_key(name) in report:
            share = share_text(report, share_key(name), report["confidence"])
            by = won_by(name, report["own_domain"])
            return f"{by} won back {share} of the log-perplexity that pruning lost on {name}"
    return ""
