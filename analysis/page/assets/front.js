// Quality against cost with axes to choose, the card of one variant, and the curves by ratio.
"use strict";

/** Return the card that shows a variant's numbers; `kept` says that a click keeps it. */
function fillCard(card, variant, kept) {
  const items = data.measures.filter(({ key }) => variant.values[key] !== undefined);
  const lines = items.flatMap(({ key, label, digits }) => {
    const bounds = intervalOf(variant, key);
    const mark = differs(variant, key) ? el("span", { class: "mark", title: "differs from the base" }, " *") : null;
    return [
      el("dt", {}, label),
      el("dd", { "data-key": key }, number(variant.values[key], digits), mark, bounds ? el("small", {}, span(...bounds, digits)) : null),
    ];
  });
  const hint = kept ? "Kept. Click it again to let go." : "Click a point to keep its numbers here.";
  card.dataset.variant = variant.id;
  card.replaceChildren(el("h3", {}, variant.label), el("dl", {}, lines), el("p", { class: "note" }, hint));
}

/** Return which points no other beats in both measures. */
function frontOf(points, x, y) {
  const worse = (one, other, { key, better }) => (better === "low" ? one.values[key] > other.values[key] : one.values[key] < other.values[key]);
  const same = (one, other) => one.values[x.key] === other.values[x.key] && one.values[y.key] === other.values[y.key];
  const beats = (other, one) => !worse(other, one, x) && !worse(other, one, y) && !same(one, other);
  return new Set(points.filter((one) => !points.some((other) => beats(other, one))).map(({ id }) => id));
}

/** Add the section of quality against cost. */
function frontSection() {
  const quality = data.measures.filter((each) => each.group === "quality");
  const costs = data.measures.filter((each) => each.group === "cost");
  if (!quality.length || !costs.length) return;
  const chosen = { x: costs[0].key, y: quality[0].key };
  const box = chartBox("Quality against cost");
  const card = el("div", { class: "card", "aria-live": "polite" });
  let kept = null;

  const show = (id, click) => {
    if (click) kept = kept === id ? null : id;
    fillCard(card, variantOf(kept === null ? id : kept), kept !== null);
  };
  const redraw = async () => {
    const x = measure[chosen.x];
    const y = measure[chosen.y];
    const points = data.variants.filter(({ values }) => values[x.key] !== undefined && values[y.key] !== undefined);
    const front = frontOf(points, x, y);
    const rows = points.map((each) => {
      const [low, high] = intervalOf(each, y.key) || [null, null];
      return { id: each.id, line: each.line, label: each.label, x: each.values[x.key], y: each.values[y.key], low, high, front: front.has(each.id) };
    });
    const scale = scaleOf(rows.map((row) => row.y));
    const axes = {
      x: { field: "x", type: "quantitative", title: x.label, scale: { zero: false, padding: 14 }, axis: { tickCount: 6, format: "~s" } },
      y: { field: "y", type: "quantitative", title: y.label, scale: { ...scale, padding: 10 } },
    };
    const bounds = rows.filter((row) => row.low !== null);
    const label = { text: { field: "label" }, ...axes };
    const { columns, more } = legendIn(box);
    const { color, shape } = lineScales(columns);
    const layer = [
      { transform: [{ filter: "datum.front" }], mark: { type: "line", color: "currentColor", strokeDash: [3, 3], opacity: 0.45 }, encoding: { ...axes, order: { field: "x" } } },
      { data: { values: bounds }, mark: { type: "rule", opacity: 0.7 }, encoding: { x: axes.x, y: { ...axes.y, field: "low" }, y2: { field: "high" }, color } },
      { mark: { type: "point", filled: true, size: 110, opacity: 1, cursor: "pointer" }, encoding: { ...axes, color, shape, description: { field: "label" } } },
    ];
    if (rows.length < 6) layer.push({ mark: { type: "text", align: "left", dx: 10, dy: -8, color: "currentColor", fontSize: 12 }, encoding: label });
    const view = await draw(box, { data: { values: rows }, layer }, `${y.label} against ${x.label}`, 380 + more);
    const of = (item) => (item && item.datum && item.datum.id !== undefined ? item.datum.id : null);
    view.addEventListener("mouseover", (_, item) => of(item) !== null && show(of(item), false));
    view.addEventListener("click", (_, item) => of(item) !== null && show(of(item), true));
    for (const path of box.querySelectorAll("path")) {
      const id = of(path.__data__);
      if (id === null || path.__data__.mark.marktype !== "symbol") continue;
      path.setAttribute("tabindex", 0);
      path.setAttribute("data-variant", id);
      path.addEventListener("focus", () => show(id, false));
      path.addEventListener("keydown", (event) => (event.key === "Enter" || event.key === " ") && (event.preventDefault(), show(id, true)));
    }
  };
  const choose = (axis) => (key) => {
    chosen[axis] = key;
    redraw();
  };
  const names = (group) => group.map(({ key, label }) => [key, label]);
  const better = "The dashed line joins the variants that no other beats in both. Bars are intervals: of the difference from the base for perplexity and average accuracy, else of the value itself.";
  section(
    "front", "Quality against cost",
    el("p", { class: "note" }, better),
    el("div", { class: "bar" }, select("vertical axis", names(quality), chosen.y, choose("y")), select("horizontal axis", names(costs), chosen.x, choose("x"))),
    el("div", { class: "split" }, box, card),
  );
  fillCard(card, variantOf(0), false);
  redraw();
}

/** Add the section of perplexity and accuracy by ratio, with bands. */
function ratioSection() {
  const ratios = new Set(data.variants.map(({ ratio }) => ratio));
  if (ratios.size < 3) return;
  const keys = [...data.sets.map((name) => `${name}_ppl`), "average"].filter((key) => measure[key]);
  const boxes = keys.map((key) => [key, chartBox(measure[key].label)]);
  const level = 100 * data.confidence;
  section(
    "ratios", "By ratio",
    el("p", { class: "note" }, `Bands are ${level} % intervals of the difference from the base: perplexity by a bootstrap over the same windows, accuracy paired by question.`),
    el("div", { class: "pair" }, boxes.map(([, box]) => box)),
  );
  for (const [key, box] of boxes) {
    const rows = data.variants.slice(1).filter(({ values }) => values[key] !== undefined).map((each) => {
      const [low, high] = intervalOf(each, key) || [each.values[key], each.values[key]];
      return { line: each.line, ratio: each.ratio, value: each.values[key], low, high, text: tooltip(each, [key]) };
    });
    const base = data.variants[0].values[key];
    const x = { field: "ratio", type: "quantitative", title: "specified ratio", scale: { zero: false, padding: 16 }, axis: { format: ".0%", values: [...ratios].filter((each) => each) } };
    const y = { field: "value", type: "quantitative", title: measure[key].label, scale: { ...scaleOf([base, ...rows.map((row) => row.value)]), padding: 8 } };
    const { columns, more } = legendIn(box);
    const { color, shape } = lineScales(columns);
    const layer = [
      { data: { values: [{ value: base }] }, mark: { type: "rule", color: "currentColor", strokeDash: [2, 3], opacity: 0.6 }, encoding: { y } },
      { mark: { type: "area", opacity: 0.16 }, encoding: { x, y: { ...y, field: "low" }, y2: { field: "high" }, color } },
      { mark: { type: "rule" }, encoding: { x, y: { ...y, field: "low" }, y2: { field: "high" }, color } },
      { mark: { type: "line", strokeWidth: 1.6 }, encoding: { x, y, color } },
      { mark: { type: "point", filled: true, size: 60, opacity: 1 }, encoding: { x, y, color, shape, tooltip: [{ field: "text.variant", title: "variant" }, { field: `text['${measure[key].label.replaceAll("'", "\\'")}']`, title: "value" }] } },
    ];
    draw(box, { data: { values: rows }, layer }, `${measure[key].label} by ratio`, 300 + more);
  }
}
