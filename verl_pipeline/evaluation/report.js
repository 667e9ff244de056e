// The page: header, summary, a section per task.

function table(headers, rows) {
  const cells = (row) => row.map((cell) => (cell instanceof HTMLTableCellElement ? cell : el("td", {}, cell)));
  const head = headers.map((name, index) =>
    el("th", { class: rows.length > 0 && cells(rows[0])[index].className }, name));
  return el("div", { class: "wide" },
    el("table", {},
      el("thead", {}, el("tr", {}, head)),
      el("tbody", {}, rows.map((row) => el("tr", {}, cells(row))))));
}

// Settings as text: "n 8, temperature 0.6".
function describe(value) {
  if (value == null || typeof value !== "object") return String(value ?? "–");
  const known = Object.entries(value).filter(([, part]) => part != null);
  return known.map(([name, part]) => `${name} ${describe(part)}`).join(", ");
}

function factList(facts) {
  const known = facts.filter(([, value]) => value != null && value !== "" && value !== "–");
  return el("dl", {}, known.map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

function figure(title, caption, ...content) {
  return el("figure", {}, el("h3", {}, title), content, caption && el("figcaption", {}, caption));
}

const folded = (title, ...content) => el("details", {}, el("summary", {}, title), content);

const shortHash = (hash) => el("code", { title: hash }, hash.slice(0, 12));

// ---- header and summary

function header({ model, engine, seed, versions, machine, started, finished, warnings }) {
  const { name, weights, ...more } = model;
  const hash = weights ? ["SHA-256 ", shortHash(weights)] : "no hash known";
  document.title = `Evaluation of ${name}`;
  return el("header", {},
    el("h1", {}, document.title),
    warnings?.length > 0 && el("div", { class: "warnings" }, el("strong", {}, "Warnings"), bullets(warnings)),
    factList([
      ["Weights", el("span", {}, hash)],
      ["Model", describe(more)],
      ["Engine", describe(engine)],
      ["Seed", describe(seed)],
      ["Run", `${started ?? "?"} to ${finished ?? "?"}`],
      ["Machine", describe(machine)],
      ["Versions", describe(versions)],
    ]));
}

function sampleCount({ counts, sampling }) {
  const product = `${integer(counts.problems)} × ${sampling?.n ?? "?"}`;
  return counts.samples === counts.expected ? product : `${product}, ${integer(counts.samples)} there`;
}

function summaryRow(task) {
  const { counts, lengths, rating } = task;
  const score = task["pass@1"], votes = task["cons@k"]?.at(-1);
  return el("tr", { class: "ours" },
    el("td", { class: "name" }, el("a", { href: `#${encodeURIComponent(task.task)}` }, task.title)),
    el("td", { class: "number score" }, score ? percent(score.value) : "–",
      rating && el("div", {}, el("small", {}, `rating ${integer(rating.value)}`))),
    number(score ? range(score) : ""),
    el("td", {}, score ? strip(score, "dot") : ""),
    number(sampleCount(task)),
    number(votes ? `${percent(votes.value)} (k = ${votes.k})` : "–"),
    number(counts.samples ? percent(counts.truncated / counts.samples) : "–"),
    number(integer(lengths?.mean)),
    el("td", {}, [task.grader, task.tier].filter(Boolean).join(", ")));
}

function publishedRow({ model, value, measure, source, note }) {
  const rated = /rating/i.test(measure);
  return el("tr", { class: "published" },
    el("td", { class: "name" }, model),
    number(rated ? integer(value) : `${value.toFixed(1)} %`),
    el("td"),
    el("td", {}, rated ? "" : strip({ value: value / 100 }, "hollow")),
    el("td", { colspan: 5 }, [measure, source, note].filter(Boolean).join(" – ")));
}

function summary(tasks) {
  const titles = [
    ["Task"], ["pass@1", "number"], ["95 % interval", "number"], ["0–100\u00a0%"], ["Problems × samples", "number"],
    ["cons@k", "number"], ["Truncated", "number"], ["Mean tokens", "number"], ["Grader, tier"],
  ];
  return el("div", { class: "summary" },
    el("div", { class: "wide" },
      el("table", {},
        el("thead", {}, el("tr", {}, titles.map(([name, kind]) => el("th", { class: kind }, name)))),
        el("tbody", {}, tasks.map((task) => [summaryRow(task), (task.published ?? []).map(publishedRow)])))),
    el("p", { class: "muted" },
      "Bold: this evaluation. Grey, with hollow dots: results published by others, with other numbers of samples, ",
      "prompts and graders: landmarks, no like-for-like comparison."));
}

// ---- charts of a task

function scores(title, xLabel, series, band, caption) {
  const drawn = series
    .map(({ name, points }) => ({ name, points: points.filter((point) => point.x > 0 && point.value != null) }))
    .filter(({ points }) => points.length);
  const places = new Set(drawn.flatMap(({ points }) => points.map(({ x }) => x)));
  if (places.size < 2) return null; // no more than pass@1 says
  return figure(title, caption,
    drawn.length > 1 && legend(drawn.map(({ name }, index) => [name, `c${index % SERIES}`])),
    scoreChart({ label: title, xLabel, series: drawn, band }));
}

function byK(task) {
  const meanings = { "pass@k": "one of k samples is right", "cons@k": "the commonest answer of k samples is right" };
  const names = Object.keys(meanings).filter((name) => task[name]?.length);
  const series = names.map((name) => ({
    name, points: task[name].map((point) => ({ ...point, x: point.k, name: name.replace("k", point.k) })),
  }));
  const ks = [...new Set(series.flatMap(({ points }) => points.map((point) => point.k)))].sort((a, b) => a - b);
  const drawn = scores("Score by number of samples", "k, samples a problem (logarithmic)", series, true,
    `${names.map((name) => `${name}: ${meanings[name]}`).join("; ")}. Bands: 95 %.`);
  const score = (points, k) => number(withRange(points.find((point) => point.k === k)));
  const rows = ks.map((k) => [number(k), ...series.map(({ points }) => score(points, k))]);
  drawn?.append(folded("values", table(["k", ...names], rows)));
  return drawn;
}

function byBudget({ budget }) {
  const named = (point) => ({ ...point, x: point.tokens, name: `at most ${integer(point.tokens)} tokens` });
  const points = (budget ?? []).map(named);
  const drawn = scores("Score by length allowed", "most tokens a response may have (logarithmic)",
    [{ name: "pass@1", points }], true, "pass@1 if longer responses counted as wrong. Band: 95 %.");
  const rows = points.map((point) => [number(integer(point.tokens)), number(withRange(point))]);
  drawn?.append(folded("values", table(["tokens", "pass@1"], rows)));
  return drawn;
}

function byMethod({ methods }) {
  // "vote of 4" and "vote of 8", or cons@4 and cons@8, are points of one line.
  const families = Map.groupBy(methods ?? [], ({ name }) => name.replace(/(@| of )\d+$/, ""));
  const series = [...families].map(([name, members]) => ({
    name, points: members.map((method) => ({ ...method, x: method.tokens_per_problem })).sort((a, b) => a.x - b.x),
  }));
  const drawn = scores("Score by what it costs", "generated tokens a problem (logarithmic)", series, false,
    "Test-time methods. Vertical lines: 95 %.");
  drawn?.append(table(["method", "score", "tokens a problem"],
    methods.map((method) => [method.name, number(withRange(method)), number(integer(method.tokens_per_problem))])));
  return drawn;
}

function byLength({ lengths }) {
  if (!lengths?.histogram?.length) return null;
  const { mean, median, p95, max } = lengths;
  return figure("Lengths of responses",
    `mean ${integer(mean)}, median ${integer(median)}, 95 % up to ${integer(p95)}, longest ${integer(max)}`,
    legend([["accepted", "good"], ["not accepted", "c1"]]),
    histogram({ label: "Lengths of responses", xLabel: "tokens in the response", bars: lengths.histogram }));
}

function byVerdict({ verdicts }) {
  const parts = Object.entries(verdicts ?? {}).filter(([, count]) => count)
    .sort(([one, few], [other, many]) => (other === "accepted") - (one === "accepted") || many - few)
    .map(([verdict, count]) => ({ name: words(verdict), count, colour: colourOf(verdict) }));
  const whole = parts.reduce((sum, { count }) => sum + count, 0);
  if (!whole) return null;
  const row = ({ name, count, colour }) =>
    [el("td", {}, swatch(colour), name), number(integer(count)), number(percent(count / whole))];
  return figure("Verdicts", null,
    shareBar("Shares of verdicts", parts),
    table(["verdict", "samples", "share"], parts.map(row)));
}

function byTag(tag, rows) {
  const cells = (row) => [row.name, number(integer(row.problems)), number(withRange(row)), strip(row, "dot")];
  return figure(`By ${tag}`, null, table([tag, "problems", "pass@1", "0–100\u00a0%"], rows.map(cells)));
}

// ---- sections

function ratingText({ value, low, high, contests, note }) {
  const interval = low == null ? "" : ` (${integer(low)} – ${integer(high)})`;
  return `${integer(value)}${interval}, ${integer(contests)} contests; ${note}`;
}

function section(task, browser) {
  const { counts, rating, tokens, breakdown } = task;
  const { origin, sha256, problems, bad_rows: bad, notes, seen_in_training: seen } = task.data;
  const tags = Object.entries(breakdown ?? {}).filter(([, rows]) => rows.length);
  return el("section", {},
    el("h2", {}, task.title, " ", el("small", {}, `${task.split} split`)),
    factList([
      ["pass@1", withRange(task["pass@1"])],
      ["Rating", rating && ratingText(rating)],
      ["Samples", `${sampleCount(task)}; ${integer(counts.failed)} failed, ` +
        `${integer(counts.infrastructure)} not graded (infrastructure), ${integer(counts.truncated)} truncated`],
      ["Sampling", `${describe(task.sampling)}; style ${task.style}`],
      ["Options", describe(task.options)],
      ["Tokens", tokens && `${integer(tokens.prompt)} in prompts, ${integer(tokens.generated)} generated`],
      ["Data", el("span", {}, `${integer(problems)} problems of ${origin}, SHA-256 `, shortHash(sha256))],
    ]),
    bullets(notes),
    bad?.length > 0 && folded(`Rows of the data that could not be read: ${integer(bad.length)}`, bullets(bad)),
    seen?.length > 0 && folded(`Problems that are in the training data: ${integer(seen.length)}`, bullets(seen)),
    el("div", { class: "charts" },
      byK(task), byBudget(task), byMethod(task), byLength(task), byVerdict(task),
      tags.map(([tag, rows]) => byTag(tag, rows))),
    browser.element);
}

// ---- the page

const { results, tasks } = JSON.parse(document.getElementById("data").textContent);
const browsers = new Map(results.tasks.map((task, index) => [task.task, sampleBrowser(task.task, tasks[index])]));
document.querySelector("main").append(
  header(results),
  summary(results.tasks),
  ...results.tasks.map((task) => section(task, browsers.get(task.task))));

// #task shows a section, #task/problem one of its problems; both parts are URL-encoded, but need not be.
function follow() {
  const [, task, problem] = /^#([^/]*)\/?(.*)$/s.exec(location.hash) ?? [];
  const browser = browsers.get(decoded(task ?? ""));
  if (!browser) return;
  if (problem) browser.select(decoded(problem));
  else browser.element.closest("section").scrollIntoView();
}

window.addEventListener("hashchange", follow);
follow();
