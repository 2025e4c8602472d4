// The table of variants: sortable, filterable; the base stays on top, what takes no model at the bottom.
"use strict";

const pair = { first: 0, second: Math.min(1, data.variants.length - 1), listeners: [] };

/** Choose the variants that are compared, and tell who shows them. */
function choosePair(change) {
  Object.assign(pair, change);
  for (const listener of pair.listeners) listener();
}

/** Return the variants that are best of their ratio in a measure, where they differ in it. */
function bestOf(each) {
  const best = new Set();
  const rest = data.variants.slice(1);
  for (const ratio of new Set(rest.map((variant) => variant.ratio))) {
    const here = rest.filter((variant) => variant.ratio === ratio && variant.values[each.key] !== undefined);
    const values = here.map((variant) => Number(variant.values[each.key].toFixed(each.digits)));
    const target = each.better === "low" ? Math.min(...values) : Math.max(...values);
    if (new Set(values).size > 1) here.filter((_, index) => values[index] === target).forEach(({ id }) => best.add(id));
  }
  return best;
}

/** Return one number's cell. */
function valueCell(variant, each, best) {
  const value = variant.values[each.key];
  const text = number(value, each.digits);
  const spread = variant.spread && variant.spread[each.key];
  const mark = differs(variant, each.key) ? el("span", { class: "mark", title: "differs from the base" }, " *") : null;
  const printed = best.has(variant.id) && data.kind === "study" ? el("b", {}, text) : text;
  const error = spread === undefined ? null : ` ± ${number(spread, each.digits)}`;
  return el("td", { class: "number", "data-key": each.key }, printed, error, mark);
}

/** Add the section with the table of variants. */
function tableSection() {
  const state = { key: null, down: false, group: "quality", text: "", ratio: "" };
  const head = el("thead", {});
  const body = el("tbody", {});
  const count = el("p", { class: "note", role: "status" });
  const columns = () => data.measures.filter(({ group }) => state.group === "all" || group === state.group);
  const valueOf = (variant) => (state.key === "label" ? variant.label : state.key === "ratio" ? variant.ratio : variant.values[state.key]);

  const sorted = (variants) => {
    if (state.key === null) return variants;
    const order = (a, b) => {
      const [one, other] = [valueOf(a), valueOf(b)];
      if (one === undefined || other === undefined) return (one === undefined) - (other === undefined);
      const difference = typeof one === "string" ? one.localeCompare(other) : one - other;
      return state.down ? -difference : difference;
    };
    return [...variants].sort(order);
  };
  const heading = (key, text, side) => {
    const sort = state.key === key ? (state.down ? "descending" : "ascending") : "none";
    const click = () => {
      state.down = state.key === key && !state.down;
      state.key = key;
      fill();
      head.querySelector(`[data-sort="${CSS.escape(key)}"]`).focus();
    };
    return el("th", { scope: "col", class: side, "aria-sort": sort }, el("button", { type: "button", "data-sort": key, onclick: click }, text));
  };
  const pick = (variant, place, name) =>
    el("td", { class: "pick" }, el("input", {
      type: "radio", name: `pick-${place}`, checked: pair[place] === variant.id,
      "aria-label": `compare ${variant.label} as ${name}`, onchange: () => choosePair({ [place]: variant.id }),
    }));
  const row = (variant, best) => {
    const model = variant.role !== "guess";
    const picks = [["first", "A"], ["second", "B"]].map(([place, name]) => (model ? pick(variant, place, name) : el("td", { class: "pick" })));
    const name = el("th", { scope: "row", class: "name" }, variant.label);
    const ratio = el("td", { class: "number" }, model ? `${number(100 * variant.ratio, 1).replace(/\.0$/, "")} %` : "-");
    const cells = columns().map((each) => valueCell(variant, each, best[each.key]));
    return el("tr", { class: variant.role, "data-variant": model ? variant.id : null }, name, picks, ratio, cells);
  };
  const fill = () => {
    const best = Object.fromEntries(columns().map((each) => [each.key, bestOf(each)]));
    const wanted = state.text.toLowerCase();
    const [base, ...rest] = data.variants;
    const shown = rest.filter((each) => each.label.toLowerCase().includes(wanted) && (state.ratio === "" || each.ratio === Number(state.ratio)));
    head.replaceChildren(el("tr", {}, heading("label", "variant", "name"), el("th", { scope: "col", class: "pick" }, "A"), el("th", { scope: "col", class: "pick" }, "B"),
      heading("ratio", "ratio", "number"), columns().map(({ key, label }) => heading(key, label, "number"))));
    body.replaceChildren(...[base, ...sorted(shown), ...data.baselines].map((each) => row(each, best)));
    count.textContent = `${shown.length} of ${rest.length} variants`;
  };
  const groups = [["quality", "Quality"], ["cost", "Cost"], ["all", "Both"]].map(([key, text]) =>
    el("button", { type: "button", "aria-pressed": String(key === state.group), onclick: (event) => {
      state.group = key;
      for (const each of event.target.parentNode.children) each.setAttribute("aria-pressed", String(each === event.target));
      fill();
    } }, text));
  const search = el("input", { type: "search", oninput: () => { state.text = search.value; fill(); } });
  const ratios = [...new Set(data.variants.slice(1).map(({ ratio }) => ratio))].sort((a, b) => a - b);
  const filters = data.kind === "run" ? [] : [
    el("label", { class: "field" }, el("span", {}, "filter by name"), search),
    select("ratio", [["", "all"], ...ratios.map((each) => [each, `${number(100 * each, 1).replace(/\.0$/, "")} %`])], "", (value) => { state.ratio = value; fill(); }),
  ];
  const level = Number((1 - data.confidence).toFixed(6));
  const bold = data.kind === "study" ? " Bold: the best of its ratio. ±: one standard deviation over seeds, where there are several." : "";
  const note = `* differs from the base at level ${level}: perplexity where the bootstrap interval of the ratio leaves out 1, accuracy by McNemar's exact test on the same questions, Holm-adjusted.${bold} A and B choose what is compared below.`;
  section(
    "variants", data.kind === "run" ? "Models" : "Variants",
    el("p", { class: "note" }, note),
    el("div", { class: "bar" }, el("div", { role: "group", "aria-label": "columns", class: "group" }, groups), filters),
    scrolling(el("table", { class: "variants" }, head, body), "Variants and their numbers"),
    data.kind === "run" ? null : count,
  );
  pair.listeners.push(fill);
  fill();
}
