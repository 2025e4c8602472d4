// Any two variants side by side: differences with their significance, widths, continuations, params, commands.
"use strict";

/** Return the rows of the table of differences of B from A. */
function differenceRows(first, second) {
  const found = contrastOf(first.id, second.id) || {};
  const level = 1 - data.confidence;
  return data.measures.filter(({ key }) => first.values[key] !== undefined || second.values[key] !== undefined).map((each) => {
    const values = [first, second].map(({ values: own }) => number(own[each.key], each.digits));
    const ratio = (found.ratios || {})[each.key.replace(/_ppl$/, "")];
    const test = (found.tasks || {})[each.key];
    let rest = ["-", "-", "-", "-"];
    if (each.key.endsWith("_ppl") && ratio) {
      rest = [`× ${number(ratio[0], 4)}`, span(ratio[1], ratio[2], 4) || "-", "-", ratio[1] === null ? "unknown" : apart(ratio) ? "yes" : "no"];
    } else if (test) {
      rest = [`${signed(test.points, 2)} points`, `${test.lost} lost, ${test.won} won`, `${pValue(test.p)} / ${pValue(test.p_holm)}`, test.p_holm < level ? "yes" : "no"];
    } else if (each.key === "average" && found.average) {
      const [value, low, high] = found.average;
      rest = [`${signed(value, 2)} points`, span(low, high, 2) || "-", "-", low === null ? "unknown" : low > 0 || high < 0 ? "yes" : "no"];
    } else if (each.group === "cost" && first.values[each.key] && second.values[each.key] !== undefined) {
      rest = [`${number((100 * second.values[each.key]) / first.values[each.key], 2)} % of A`, "-", "-", "-"];
    }
    return [each.label, ...values, ...rest];
  });
}

/** Return the continuations of the same prompts by some variants. */
function continuations(variants) {
  const prompts = [...new Set(variants.flatMap(({ samples }) => (samples || []).map(({ prompt }) => prompt)))];
  return prompts.map((prompt) =>
    el("div", { class: "texts" }, variants.map((variant) => {
      const found = (variant.samples || []).find((each) => each.prompt === prompt);
      return el("div", {}, el("h4", {}, variant.label), el("p", {}, el("span", { class: "prompt" }, prompt), el("span", { class: "written" }, found ? found.continuation : " -")));
    })),
  );
}

/** Return the params that differ between two variants as a table, nothing where they have none. */
function paramRows(first, second) {
  const keys = [...new Set([first, second].flatMap(({ params }) => Object.keys(params || {})))].sort();
  const text = (variant, key) => (variant.params && key in variant.params ? JSON.stringify(variant.params[key]) : "-");
  return keys.map((key) => [key, text(first, key), text(second, key)]).filter(([, one, other]) => one !== other);
}

/** Return a command with a button that copies it. */
function command(text) {
  const copy = async (event) => {
    await navigator.clipboard.writeText(text);
    event.target.textContent = "Copied";
  };
  return el("div", { class: "command" }, el("pre", {}, text), el("button", { type: "button", onclick: copy }, "Copy"));
}

/** Add the section that compares two variants. */
function compareSection() {
  if (data.variants.length < 2) return;
  const content = el("div", { id: "comparison" });
  const bar = el("div", { class: "bar" });
  const fill = () => {
    const [first, second] = [variantOf(pair.first), variantOf(pair.second)];
    const options = data.variants.map(({ id, label }) => [id, label]);
    bar.replaceChildren(
      select("A, the reference", options, pair.first, (id) => choosePair({ first: Number(id) })),
      select("B", options, pair.second, (id) => choosePair({ second: Number(id) })),
      el("button", { type: "button", onclick: () => choosePair({ first: pair.second, second: pair.first }) }, "Swap A and B"),
    );
    const headings = ["measure", `A: ${first.label}`, `B: ${second.label}`, "B against A", "interval, questions", "p / Holm's p", "significant"];
    const widths = chartBox("Widths by layer");
    const texts = continuations([first, second]);
    const params = paramRows(first, second);
    const commands = [first, second].filter((each) => each.commands).map((each) => [
      el("h3", {}, each.label),
      Object.entries(each.commands).map(([what, text]) => [el("p", { class: "note" }, what), command(text)]),
    ]);
    content.replaceChildren(
      table(headings, differenceRows(first, second)),
      el("h3", {}, "Widths by layer"), widths,
      ...(texts.length && data.kind === "study" ? [el("h3", {}, "Continuations of the same prompts"), ...texts] : []),
      ...(params.length ? [el("h3", {}, "Params that differ"), table(["key", "A", "B"], params, 3)] : []),
      ...(commands.length ? [el("h3", {}, "Commands"), ...commands.flat(3)] : []),
    );
    drawWidths(widths, [[`A: ${first.label}`, first], [`B: ${second.label}`, second]]);
  };
  const note = "Perplexity as a ratio with its interval; accuracy by McNemar's exact test on the same questions, raw and Holm-adjusted: over all tests of the report for pairs that it lists, else over the pair's tasks.";
  section("compare", "Side by side", el("p", { class: "note" }, note), bar, content);
  pair.listeners.push(fill);
  fill();
}
