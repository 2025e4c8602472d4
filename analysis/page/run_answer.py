"""The sentences on top of a run's page, which answer the question that the run asks."""

from analysis.recovery import other_domains_first, share_text, won_by
from analysis.results import perplexity_sets
from analysis.run_report import RunReport


def run_answer(report: RunReport) -> list[str]:
    """Return what pruning took, what it cost, what recovery brought back, and how sure that is."""
    results, evaluate, own_domain = report.results, report.evaluate, report.own_domain
    sentences = []
    before, after = (results[model].profile.get("parameters") for model in ("base", "pruned"))
    if before and after:
        share = 100 * (1 - after / before)
        sentences.append(f"Pruning with method {report.pruning.method} removed {share:.1f} % of the parameters.")
    base, pruned, tuned = (evaluate[model] for model in ("base", "pruned", "tuned"))
    for name in other_domains_first(perplexity_sets(evaluate), own_domain)[:1]:
        key = f"{name}_ppl"
        if key in base and key in pruned:
            text = f"The perplexity on {name} changed from {base[key]:,.2f} to {pruned[key]:,.2f}"
            if key in tuned:
                text += f"; {won_by(name == own_domain)} changed it to {tuned[key]:,.2f}"
            for recovery in report.comparison.recoveries:
                if recovery.text == name:
                    won = share_text(recovery.share, report.params.confidence)
                    text += f", winning back {won} of the lost log-perplexity"
            sentences.append(f"{text}.")
    model = "tuned" if tuned else "pruned"
    tests = [each for each in report.comparison.accuracies if (each.reference, each.model) == ("base", model)]
    if tests:
        worse = [each.name for each in tests if each.significant and each.estimate.value < 0]
        named = f" ({', '.join(worse)})" if worse else ""
        sentences.append(
            f"The {model} model is significantly less accurate than the base on {len(worse)} of {len(tests)} "
            f"task{'s' if len(tests) > 1 else ''}{named}."
        )
    return sentences
