// The page's data, and what builds the page of it. Text from data enters as text, never as HTML.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const LOCALE = "en-US";
const measure = Object.fromEntries(data.measures.map((each) => [each.key, each]));

/** Return an element; an attribute `on<event>` is a listener, children are elements or texts. */
function el(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

/** Return a number as the page prints it, "-" where there is none. */
function number(value, digits) {
  if (value === null || value === undefined) return "-";
  return value.toLocaleString(LOCALE, { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/** Return a large number in thousands, millions or billions. */
function compact(value) {
  return value.toLocaleString(LOCALE, { notation: "compact", maximumSignificantDigits: 4 });
}

/** Return a number with its sign. */
function signed(value, digits) {
  return (value > 0 ? "+" : "") + number(value, digits);
}

/** Return a p-value as the page prints it. */
function pValue(p) {
  return p === null || p === undefined ? "-" : p < 0.001 ? "< 0.001" : number(p, 3);
}

/** Return bounds as the page prints them, nothing where there are none. */
function span(low, high, digits) {
  return low === null || low === undefined ? "" : `${number(low, digits)} to ${number(high, digits)}`;
}

/** Return a labelled select; `options` are [value, text], and `choose` takes the value that is chosen. */
function select(label, options, value, choose) {
  const list = options.map(([key, text]) => el("option", { value: key, selected: String(key) === String(value) }, text));
  const field = el("select", { onchange: () => choose(field.value) }, list);
  return el("label", { class: "field" }, el("span", {}, label), field);
}

/** Add a section to the page and to its contents, and return it. */
function section(id, title, ...children) {
  const made = el("section", { id, "aria-labelledby": `${id}-title` }, el("h2", { id: `${id}-title` }, title), children);
  document.getElementById("main").append(made);
  document.getElementById("contents").append(el("a", { href: `#${id}` }, title));
  return made;
}

/** Return a table in a box that scrolls where it is wider than the page; `left` columns hold text. */
function table(headings, rows, left = 1, caption = "") {
  const side = (index) => (index < left ? "text" : "number");
  const head = headings.map((each, index) => el("th", { scope: "col", class: side(index) }, each));
  const body = rows.map((cells) =>
    el("tr", {}, cells.map((cell, index) => el(index ? "td" : "th", { scope: index ? null : "row", class: side(index) }, cell))),
  );
  const made = el("table", {}, caption ? el("caption", {}, caption) : null, el("thead", {}, el("tr", {}, head)), el("tbody", {}, body));
  return scrolling(made, caption || headings.join(", "));
}

/** Return a box around a wide element that the keyboard can scroll. */
function scrolling(element, label) {
  return el("div", { class: "wide", tabindex: 0, role: "region", "aria-label": label }, element);
}

/** Return the base's variant number `id`, or the row without a model of that label. */
function variantOf(id) {
  return data.variants[Number(id)];
}

/** Return what distinguishes variant `second` from `first`, whichever way the data holds it; null where nothing does. */
function contrastOf(first, second) {
  const [reference, model] = first < second ? [first, second] : [second, first];
  const found = data.contrasts.find((each) => each.reference === reference && each.model === model);
  if (!found || first < second) return found || null;
  const invert = (each) => each && [1 / each[0], each[2] && 1 / each[2], each[1] && 1 / each[1]];
  const ratios = Object.fromEntries(Object.entries(found.ratios || {}).map(([name, each]) => [name, invert(each)]));
  const turned = ([task, test]) => [task, { ...test, points: -test.points, lost: test.won, won: test.lost }];
  const tasks = Object.fromEntries(Object.entries(found.tasks || {}).map(turned));
  const [value, low, high] = found.average || [];
  return { ratios, tasks, average: found.average && [-value, -high, -low] };
}

/** Return whether a ratio's interval leaves out 1. */
function apart([, low, high]) {
  return low !== null && high !== null && (low > 1 || high < 1);
}

/** Return whether a variant differs significantly from the base in a measure. */
function differs(variant, key) {
  if (variant.role !== "variant") return false;
  const found = contrastOf(0, variant.id);
  const ratio = found && found.ratios && found.ratios[key.replace(/_ppl$/, "")];
  if (key.endsWith("_ppl")) return Boolean(ratio) && apart(ratio);
  const test = found && found.tasks && found.tasks[key];
  return Boolean(test) && test.p_holm < 1 - data.confidence;
}

/** Return [low, high] of a variant in a measure: what is known of its difference from the base, or of itself. */
function intervalOf(variant, key) {
  const value = variant.values[key];
  if (value === undefined || variant.role !== "variant") return null;
  const found = contrastOf(0, variant.id) || {};
  const base = data.variants[0].values[key];
  const ratio = key.endsWith("_ppl") && found.ratios && found.ratios[key.replace(/_ppl$/, "")];
  if (ratio && ratio[1] !== null) return [base * ratio[1], base * ratio[2]];
  if (key === "average" && found.average && found.average[1] !== null) return found.average.slice(1).map((each) => base + each);
  const error = variant.errors[key];
  if (error !== undefined) return [value - data.z * error, value + data.z * error];
  const spread = variant.spread[key];
  return spread === undefined ? null : [value - spread, value + spread];
}
