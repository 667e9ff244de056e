"use strict";
/* Draws charts when they come into view, in the page's colours; tabs of runs; reloading.
   Texts of a run enter the document through textContent only. */

const dark = matchMedia("(prefers-color-scheme: dark)");
const drawn = new Map();

function readColour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function readJson(id) {
  return JSON.parse(document.getElementById(id).textContent);
}

/** Gives texts, axes and grids of a chart the colours of the page. */
function dressChart(view) {
  const text = readColour("--text"), muted = readColour("--muted"), line = readColour("--line");
  const ground = readColour("--ground");
  for (const model of view.model.references()) {
    if (model.type === "Figure") {
      model.setv({ background_fill_color: ground, border_fill_color: ground });
    } else if (model.type.endsWith("Axis")) {
      model.setv({
        axis_label_text_color: muted, major_label_text_color: text, axis_line_color: line,
        major_tick_line_color: line,
      });
    } else if (model.type === "LabelSet" || model.type === "Title") {
      model.setv({ text_color: text });
    } else if (model.type === "Grid") {
      model.setv({ grid_line_color: line, grid_line_alpha: 0.7 });
    }
  }
}

async function drawChart(place) {
  const id = place.dataset.chart;
  if (drawn.has(id)) return;
  drawn.set(id, null);
  const chart = readJson(`chart-${id}`);
  const views = await Bokeh.embed.embed_item(chart.item, place);
  const view = [...views][0];
  if (chart.legend.length > 0) place.before(makeLegend(chart.legend, view));
  drawn.set(id, view);
  dressChart(view);
  connectTaps(view, place);
  place.dataset.drawn = "";
}

/** A legend whose entries hide and show what they stand for. */
function makeLegend(entries, view) {
  const models = new Map([...view.model.references()].map((model) => [model.id, model]));
  return make("div", { class: "legend" }, ...entries.map(({ label, colour, ids }) => {
    const button = make("button", { type: "button", "aria-pressed": "true" },
      make("span", { class: "swatch" }), label);
    button.firstChild.style.background = colour;
    button.addEventListener("click", () => {
      const isShown = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(isShown));
      for (const id of ids) models.get(id).visible = isShown;
    });
    return button;
  }));
}

/** Opens the trajectory whose bar is tapped. */
function connectTaps(view, place) {
  const run = place.closest(".one-run");
  if (!run) return;
  for (const model of view.model.references()) {
    if (model.type !== "ColumnDataSource" || !model.name?.startsWith("trajectories ")) continue;
    model.selected.properties.indices.change.connect(() => {
      const index = model.selected.indices[0];
      if (index === undefined) return;
      const step = model.get_column("step")[index];
      const chunk = Number.isNaN(step) ? "none" : step;
      location.hash = `rollout-${run.dataset.run}-${chunk}-${model.get_column("id")[index]}`;
    });
  }
}

function watchCharts() {
  const observer = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      observer.unobserve(entry.target);
      drawChart(entry.target);
    }
  }, { rootMargin: "600px 0px" });
  for (const place of document.querySelectorAll("[data-chart]")) observer.observe(place);
  dark.addEventListener("change", () => {
    for (const view of drawn.values()) if (view) dressChart(view);
  });
}

function selectRun(number) {
  for (const run of document.querySelectorAll(".one-run")) run.hidden = run.dataset.run !== number;
  for (const tab of document.querySelectorAll("[role=tab]")) {
    tab.setAttribute("aria-selected", String(tab.id === `tab-${number}`));
  }
}

function connectTabs() {
  for (const tab of document.querySelectorAll("[role=tab]")) {
    tab.addEventListener("click", () => selectRun(tab.id.slice("tab-".length)));
  }
}

/** Follows links to a row of a viewer, and links into a run that is not shown. */
function followHash() {
  const viewer = viewers.find((one) => one.follow(location.hash));
  const target = viewer ? null : document.getElementById(decodeText(location.hash.slice(1)));
  const run = (viewer?.place ?? target)?.closest(".one-run");
  if (!run?.hidden) return;
  selectRun(run.dataset.run);
  target?.scrollIntoView();
}

/** A page of a run that goes on is written anew: load it, unless somebody reads or types. */
function followRun() {
  const seconds = +document.body.dataset.refresh;
  if (!seconds) return;
  let touched = 0;
  for (const kind of ["pointerdown", "keydown", "wheel", "touchmove"]) {
    addEventListener(kind, () => { touched = Date.now(); }, { passive: true });
  }
  setInterval(() => {
    if (Date.now() - touched > 60_000) location.reload();
  }, seconds * 1000);
}

const kinds = { rollouts: RolloutViewer, samples: SampleViewer };
const viewers = [...document.querySelectorAll("[data-viewer]")].map((place) => {
  const { viewer, source, name } = place.dataset;
  return new kinds[viewer](place, readJson(source), name);
});
connectTabs();
watchCharts();
addEventListener("hashchange", followHash);
followHash();
followRun();
