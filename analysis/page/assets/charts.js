// Vega-Lite: the look that all charts share. Colours are the style sheet's, so that they follow dark, light and print.
"use strict";

const SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left"];
const COLOURS = SHAPES.map((_, index) => `var(--c${index})`);
const drawing = new Set();
const narrow = () => window.innerWidth < 760;

const LOOK = {
  background: "transparent",
  font: "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif",
  view: { stroke: null },
  axis: {
    labelColor: "currentColor", titleColor: "currentColor", domainColor: "currentColor", tickColor: "currentColor",
    gridColor: "currentColor", gridOpacity: 0.1, domainOpacity: 0.4, tickOpacity: 0.4, labelFontSize: 11.5,
    titleFontSize: 12, titleFontWeight: "normal", titlePadding: 8, labelOpacity: 0.75,
  },
  legend: { labelColor: "currentColor", titleColor: "currentColor", labelFontSize: 12, symbolSize: 80, labelLimit: 260 },
  title: { color: "currentColor", fontSize: 12.5, fontWeight: 600, anchor: "start" },
};

/** Return the function vegaEmbed, unpacked from the page. The library gets a scope of its own for its short names. */
async function unpacked() {
  const packed = Uint8Array.from(atob(document.getElementById("library").textContent), (each) => each.charCodeAt(0));
  const script = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  new Function(await new Response(script).text())();
  return window.vegaEmbed;
}

const library = unpacked();

/** Draw a Vega-Lite spec as wide as `box`, and return the promise of its view. */
async function draw(box, spec, description, height = 300) {
  drawing.add(box);
  const whole = { width: "container", height, autosize: { type: "fit", contains: "padding" }, description, config: LOOK, ...spec };
  const vegaEmbed = await library;
  const { view } = await vegaEmbed(box, whole, { actions: false, renderer: "svg", tooltip: { theme: "custom" } });
  drawing.delete(box);
  return view;
}

/** Return an empty box for a chart. */
function chartBox(label) {
  return el("div", { class: "chart", role: "group", "aria-label": label });
}

/** Return the names of a study's lines, the base's first. */
function lineNames() {
  return [...new Set(data.variants.map((each) => each.line))];
}

/** Return into how many columns a legend of the lines fits the chart in `box`, and the pixels of its rows after two. */
function legendIn(box) {
  const widths = lineNames().map((name) => 24 + 6.1 * name.length);
  const width = (columns) => {
    const widest = Array(columns).fill(0);
    widths.forEach((each, index) => (widest[index % columns] = Math.max(widest[index % columns], each)));
    return widest.reduce((sum, each) => sum + each);
  };
  const columns = [6, 5, 4, 3, 2].find((each) => width(each) <= box.clientWidth - 64) || 1; // 64: the axis beside it
  return { columns, more: 15 * Math.max(0, Math.ceil(widths.length / columns) - 2) };
}

/** Return colour and shape of the lines of a study, the base's black; both say the same, so neither is needed. */
function lineScales(columns) {
  const lines = lineNames();
  const others = lines.slice(1);
  const colours = ["currentColor", ...others.map((_, index) => COLOURS[index % COLOURS.length])];
  const shapes = ["circle", ...others.map((_, index) => SHAPES[(index + Math.floor(index / SHAPES.length)) % SHAPES.length])];
  const legend = { title: null, orient: "top", columns, symbolOpacity: 1 };
  return {
    color: { field: "line", type: "nominal", scale: { domain: lines, range: colours }, legend },
    shape: { field: "line", type: "nominal", scale: { domain: lines, range: shapes }, legend },
  };
}

/** Return a scale for positive values, logarithmic where they span more than a factor of `factor`. */
function scaleOf(values, factor = 4) {
  const low = Math.min(...values);
  return low > 0 && Math.max(...values) / low > factor ? { type: "log", nice: false } : { zero: false };
}

/** Return what a chart's tooltip holds: the variant, and each measure with its interval. */
function tooltip(variant, keys) {
  const lines = { variant: variant.label };
  for (const key of keys) {
    const { label, digits } = measure[key];
    const bounds = intervalOf(variant, key);
    lines[label] = number(variant.values[key], digits) + (bounds ? ` (${span(...bounds, digits)})` : "");
  }
  return lines;
}

/** Draw one loss by step: of every step, or of the held-out text, which may be another objective's. */
function drawCurve(box, rows, title) {
  const point = rows.length < 60 ? { size: 30 } : false;
  const spec = {
    data: { values: rows },
    mark: { type: "line", strokeWidth: 1.5, color: "var(--c0)", point: point && { ...point, color: "var(--c0)" } },
    encoding: {
      x: { field: "step", type: "quantitative", title: "optimizer step" },
      y: { field: "loss", type: "quantitative", title, scale: { zero: false } },
      tooltip: [{ field: "step" }, { field: "loss", format: ".4f" }],
    },
  };
  return draw(box, spec, `${title} by optimizer step`, 220);
}

/** Return the columns of layers that say how wide they are, of those that pruning changed in some of `variants`. */
function widthColumns(variants) {
  const found = new Set();
  for (const { layers } of variants) {
    for (const column of Object.keys(layers || {})) {
      const before = layers[`${column}_before`];
      if (before && layers[column].some((value, index) => value !== before[index])) found.add(column);
    }
  }
  if (found.has("query_heads")) found.delete("kv_heads");
  if (found.size > 1) found.delete("parameters_nonzero");
  return [...found];
}

/** Draw what is left of each layer of some variants, in percent of the base, as one picture. */
function drawWidths(box, named) {
  const columns = widthColumns(named.map(([, variant]) => variant));
  const rows = [];
  const count = Math.max(0, ...named.map(([, { layers }]) => (layers.layer || []).length));
  for (const [name, { layers }] of named) {
    for (const column of columns) {
      for (let layer = 0; layer < count; layer += 1) {
        const before = (layers[`${column}_before`] || [])[layer];
        const left = before ? layers[column][layer] : null;
        rows.push({
          layer, model: name, part: column.replaceAll("_", " "), percent: before ? (100 * left) / before : 100,
          left: before ? `${number(left, 0)} of ${number(before, 0)}` : "all",
        });
      }
    }
  }
  if (!rows.length) {
    box.replaceChildren(el("p", { class: "note" }, "All layers are as wide as the base's."));
    return null;
  }
  const spec = {
    data: { values: rows },
    encoding: {
      x: { field: "layer", type: "quantitative", scale: { nice: false }, axis: { tickMinStep: 1, format: "d", grid: false } },
      y: { field: "percent", type: "quantitative", title: columns.length > 1 ? "left of the base's width (%)" : `${columns[0].replaceAll("_", " ")} left (%)`, scale: { domainMin: 0, domainMax: 100 } },
      color: { field: "model", type: "nominal", legend: { title: null, orient: "top", columns: narrow() ? 1 : 4 }, scale: { range: ["var(--c0)", "var(--c1)", "var(--c2)"] } },
      tooltip: [{ field: "model" }, { field: "layer" }, { field: "part" }, { field: "left" }],
    },
    layer: [
      {
        mark: { type: "line", interpolate: "step", strokeWidth: 2 },
        encoding: { strokeDash: { field: "part", type: "nominal", legend: columns.length > 1 ? { title: null, orient: "top", symbolSize: 500, symbolStrokeColor: "currentColor" } : null } },
      },
      { mark: { type: "point", filled: true, opacity: 1, size: 26 } },
    ],
  };
  return draw(box, spec, "Width of each layer in percent of the base's", 240);
}
