// What a run's page has beside a study's: the questions that flipped, training, continuations, stages.
"use strict";

const AT_ONCE = 15;

/** Add the section of the questions that models answer differently. */
function flipSection() {
  const tasks = Object.keys(data.flips || {});
  if (!tasks.length) return;
  const models = data.variants.map(({ model }) => model);
  const contrasts = models.flatMap((reference, index) => models.slice(index + 1).map((model) => [`${reference}|${model}`, `${reference} to ${model}`]));
  const state = { contrast: contrasts[0][0], task: "", way: "lost", text: "", shown: AT_ONCE };
  const list = el("ol", { class: "questions" });
  const count = el("p", { class: "note", role: "status" });
  const more = el("button", { type: "button", class: "more", onclick: () => { state.shown += AT_ONCE; fill(); } }, "Show more");

  const item = (task, question) => {
    const choices = question.choices.map((text, index) => el("li", { class: index === question.answer ? "right" : null }, text));
    const right = models.filter((model) => question.right[model]).join(", ") || "none";
    return el("li", {},
      el("div", { class: "nr" }, task, el("br"), `question ${question.number}`, el("br"), `right: ${right}`),
      el("div", {}, el("p", { class: "prompt" }, question.prompt || "(its text is not there)"), choices.length ? el("ul", { class: "choices" }, choices) : null));
  };
  const fill = () => {
    const [reference, model] = state.contrast.split("|");
    const [before, after] = state.way === "lost" ? [1, 0] : [0, 1];
    const found = tasks.filter((task) => !state.task || task === state.task).flatMap((task) =>
      data.flips[task].questions.filter(({ right, prompt, choices }) =>
        right[reference] === before && right[model] === after && [prompt, ...choices].join("\n").toLowerCase().includes(state.text.toLowerCase()),
      ).map((question) => [task, question]));
    const hidden = tasks.filter((task) => !state.task || task === state.task).reduce((sum, task) => sum + data.flips[task].left_out, 0);
    list.replaceChildren(...found.slice(0, state.shown).map((each) => item(...each)));
    count.textContent = `${found.length} question${found.length === 1 ? "" : "s"}${hidden ? `; ${hidden} more that models answer differently did not fit into this page` : ""}`;
    more.hidden = found.length <= state.shown;
  };
  const choose = (key) => (value) => { Object.assign(state, { [key]: value, shown: AT_ONCE }); fill(); };
  const search = el("input", { type: "search", oninput: () => choose("text")(search.value) });
  section(
    "flips", "Questions that flipped",
    el("div", { class: "bar" },
      select("models", contrasts, state.contrast, choose("contrast")),
      select("answers", [["lost", "right before, wrong after"], ["won", "wrong before, right after"]], state.way, choose("way")),
      select("task", [["", "all"], ...tasks.map((task) => [task, task])], "", choose("task")),
      el("label", { class: "field" }, el("span", {}, "search"), search)),
    count, list, more,
  );
  fill();
}

/** Add the section of what pruning left of each layer. */
function layerSection() {
  const pruned = data.variants.find(({ model }) => model === "pruned");
  if (!pruned || !Object.keys(pruned.layers).length) return;
  const box = chartBox("Left of each layer");
  const columns = widthColumns([pruned]);
  const rows = (pruned.layers.layer || []).map((layer, index) => [
    String(layer), ...columns.map((column) => `${number(pruned.layers[column][index], 0)} of ${number(pruned.layers[`${column}_before`][index], 0)}`),
  ]);
  section("layers", "What pruning removed", box, el("details", {}, el("summary", {}, "The same as a table"), table(["layer", ...columns.map((each) => each.replaceAll("_", " "))], rows)));
  drawWidths(box, [["pruned", pruned]]);
}

/** Add the section of the training curves: training and held-out loss apart, since their objectives may differ. */
function trainingSection() {
  const names = { base: "Training of the base", tune: "Recovery of the pruned model" };
  const splits = { train: "training loss", validation: "held-out loss (nats per token)" };
  const made = Object.entries(data.curves || {}).map(([stage, rows]) => {
    const boxes = Object.entries(splits).map(([split, title]) => [rows.filter((row) => row.split === split), title, chartBox(title)]);
    const shown = boxes.filter(([own]) => own.length);
    return { shown, element: el("div", {}, el("h3", {}, names[stage] || stage), el("div", { class: "pair" }, shown.map(([, , box]) => box))) };
  });
  if (!made.length) return;
  section("training", "Training", made.map(({ element }) => element));
  for (const [rows, title, box] of made.flatMap(({ shown }) => shown)) drawCurve(box, rows, title);
}

/** Add the section of all models' continuations. */
function sampleSection() {
  const texts = continuations(data.variants);
  if (texts.length) section("samples", "Continuations", ...texts);
}

/** Add the section of what each stage took. */
function stageSection() {
  if (!data.stages || !data.stages.length) return;
  const rows = data.stages.map((each) => [each.stage, number(each.wall_seconds, 1), number(each.peak_resident_mib, 0)]);
  const total = data.stages.reduce((sum, each) => sum + each.wall_seconds, 0);
  section(
    "stages", "Cost by stage",
    el("p", { class: "note" }, "The last run of each stage on this machine, from metrics/runtime; a stage that DVC took from its cache keeps the time of its run."),
    table(["stage", "seconds", "peak memory (MiB)"], [...rows, ["all", number(total, 1), "-"]]),
  );
}
