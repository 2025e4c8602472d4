// The page from top to bottom.
"use strict";

/** Return the key figures of a run: the base's number, and what became of it. */
function keyFigures() {
  const [base, ...rest] = data.variants;
  const keys = [data.measures.find(({ key }) => key === "parameters"), ...data.measures.filter(({ key }) => key.endsWith("_ppl")),
    measure.average, measure.decode_tokens_per_second].filter(Boolean);
  return el("dl", { class: "figures" }, keys.map(({ key, label, digits }) => {
    const there = [base, ...rest].filter(({ values }) => values[key] !== undefined);
    // Recovery changes no size: a number that stays is not repeated.
    const shown = there.filter(({ values }, index) => index === 0 || values[key] !== there[index - 1].values[key]);
    const texts = shown.map(({ values }) => (key === "parameters" ? compact(values[key]) : number(values[key], digits)));
    return el("div", {}, el("dt", {}, label), el("dd", {}, texts.join(" → ")), el("small", {}, shown.map((each) => each.label).join(" → ")));
  }));
}

/** Return what of a study is not there: running, failed, missing. */
function state() {
  const { running, failed, missing } = data.status;
  const waiting = missing.filter((label) => !(label in running) && !(label in failed));
  const parts = [
    ...Object.entries(running).map(([label, stage]) => el("li", {}, `${label}: running, ${stage}`)),
    ...Object.entries(failed).map(([label, reason]) => el("li", {}, `${label}: failed: ${reason}`)),
    ...(waiting.length ? [el("li", {}, `not there yet: ${waiting.join(", ")}`)] : []),
  ];
  return parts.length ? el("div", { class: "state", role: "status" }, el("ul", {}, parts)) : null;
}

/** Add the section that says where every number comes from, with the params and the data to save. */
function sourceSection() {
  const rows = data.measures.map(({ key, label, stage, source }) => [
    label, source === key || source.endsWith("_acc") ? `metrics/${stage === "profile" ? "[details/]profile" : stage}/<model>.json: ${source}` : source, `${stage}@<model>`,
  ]);
  const sources = (data.sources || []).map((each) => [each.name || "", each.revision || "", each.sha256 || ""]);
  const params = Object.entries(data.params || {}).map(([key, value]) => [key, JSON.stringify(value)]);
  const save = () => {
    const blob = new Blob([JSON.stringify(data, null, 1)], { type: "application/json" });
    const link = el("a", { href: URL.createObjectURL(blob), download: `${data.title.replace(/[^\w.-]+/g, "-")}.json` });
    link.click();
    URL.revokeObjectURL(link.href);
  };
  const shared = data.kind === "study" ? "Params that all variants share" : "Params";
  section(
    "sources", "Where the numbers come from",
    el("p", { class: "note" }, "Perplexity, accuracy, parameters and GMac are the same on every run with these params. Speed and memory depend on the machine that measured them."),
    table(["number", "file", "stage"], rows, 3),
    sources.length ? [el("h3", {}, "Data"), table(["text", "revision", "SHA-256"], sources, 3)] : null,
    params.length ? el("details", {}, el("summary", {}, `${shared} (${params.length})`), table(["key", "value"], params, 2)) : null,
    el("p", {}, el("button", { type: "button", id: "save", onclick: save }, "Save this page's data as JSON")),
  );
}

/** Print what is folded, too. */
function unfoldForPrint() {
  let folded = [];
  const open = (value) => folded.forEach((each) => { each.open = value; });
  window.addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    open(true);
  });
  window.addEventListener("afterprint", () => open(false));
}

function build() {
  const main = document.getElementById("main");
  const sentences = data.answer.flatMap((each) => [el("span", {}, each), " "]);
  main.append(
    el("h1", {}, data.kind === "run" ? `Run: ${data.title}` : `Study ${data.title}`),
    el("p", { class: "answer" }, sentences.length ? sentences : "Nothing has been compared yet."),
  );
  if (data.kind === "run") main.append(keyFigures());
  const lacking = data.status && state();
  if (lacking) main.append(lacking);
  frontSection();
  if (data.kind === "study") ratioSection();
  tableSection();
  compareSection();
  if (data.kind === "run") {
    layerSection();
    trainingSection();
    flipSection();
    sampleSection();
    stageSection();
  }
  sourceSection();
}

build();
unfoldForPrint();
