// Builds the page: header, summary, one section per task.

// Returns settings as text: "n 8, temperature 0.6, stop [a, b]"; what is empty is left out.
function describeValue(value) {
  if (value == null || typeof value !== "object") return String(value ?? "–");
  if (Array.isArray(value)) return value.length ? `[${value.map(describeValue).join(", ")}]` : "";
  return Object.entries(value)
    .filter(([, part]) => part != null)
    .map(([name, part]) => [name, describeValue(part)])
    .filter(([, text]) => text)
    .map((pair) => pair.join(" "))
    .join(", ");
}

function factList(facts) {
  const known = facts.filter(([, value]) => value != null && value !== "" && value !== "–");
  return el(
    "dl",
    {},
    known.map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]),
  );
}

const shortHash = (hash) => el("code", { title: hash }, hash.slice(0, 12));

// ---- header and summary

// Returns a list of a task's caveats; those for which the score is not the benchmark's come first.
function caveatList(caveats) {
  const texts = (bars) => caveats.filter((caveat) => caveat.bars === bars).map(({ text }) => text);
  return [
    texts(true).length > 0 && el("div", { class: "warnings" }, bulletList(texts(true))),
    bulletList(texts(false)),
  ];
}

function header({ model, engine, seed, versions, machine, started, finished, tasks }) {
  const { name, weights, ...more } = model;
  const hash = weights ? ["SHA-256 ", shortHash(weights)] : "hash unknown";
  const warnings = tasks.flatMap((task) =>
    task.caveats.filter((caveat) => caveat.bars).map((caveat) => `${task.task}: ${caveat.text}`),
  );
  document.title = `Evaluation of ${name}`;
  return el(
    "header",
    {},
    el("h1", {}, document.title),
    warnings.length > 0 &&
      el("div", { class: "warnings" }, el("strong", {}, "Warnings"), bulletList(warnings)),
    factList([
      ["Weights", el("span", {}, hash)],
      ["Model", describeValue(more)],
      ["Engine", describeValue(engine)],
      ["Seed", describeValue(seed)],
      ["Run", `${started ?? "?"} to ${finished ?? "?"}`],
      ["Machine", describeValue(machine)],
      ["Versions", describeValue(versions)],
    ]),
  );
}

function formatReward({ value, low, high }) {
  const format = (number) => formatDecimal(number, 3);
  return format(value) + (low == null ? "" : ` (${format(low)} – ${format(high)})`);
}

function formatSampleCount({ counts, sampling }) {
  const product = `${formatInteger(counts.problems)} × ${sampling?.n ?? "?"}`;
  return counts.samples === counts.expected
    ? product
    : `${product}, ${formatInteger(counts.samples)} generated`;
}

function summaryRow(task) {
  const { counts, lengths, rating } = task;
  const score = task["pass@1"];
  const votes = task["cons@k"]?.at(-1);
  return el(
    "tr",
    { class: "ours" },
    el("td", { class: "name" }, el("a", { href: `#${encodeURIComponent(task.task)}` }, task.title)),
    el(
      "td",
      { class: "number score" },
      score ? formatPercent(score.value) : "–",
      task.mean_reward &&
        el("div", {}, el("small", {}, `mean reward ${formatReward(task.mean_reward)}`)),
      rating && el("div", {}, el("small", {}, `rating ${formatInteger(rating.value)}`)),
    ),
    numberCell(score ? formatInterval(score) : ""),
    el("td", {}, score ? intervalStrip(score, "dot") : ""),
    numberCell(formatSampleCount(task)),
    numberCell(votes ? `${formatPercent(votes.value)} (k = ${votes.k})` : "–"),
    numberCell(counts.samples ? formatPercent(counts.truncated / counts.samples) : "–"),
    numberCell(formatInteger(lengths?.mean)),
    el("td", {}, [task.grader, task.tier].filter(Boolean).join(", ")),
  );
}

function publishedRow({ model, value, measure, source, note }) {
  const rated = /rating/i.test(measure);
  return el(
    "tr",
    { class: "published" },
    el("td", { class: "name" }, model),
    numberCell(rated ? formatInteger(value) : `${formatDecimal(value, 1)} %`),
    el("td"),
    el("td", {}, rated ? "" : intervalStrip({ value: value / 100 }, "hollow")),
    el("td", { colspan: 5 }, [measure, source, note].filter(Boolean).join(" – ")),
  );
}

// Says, between our score and the published ones, that they are not comparable.
function barringRow({ caveats, published }) {
  const barring = caveats.filter((caveat) => caveat.bars);
  if (!barring.length) return null;
  const texts = [
    published?.length > 0 && "Not comparable with the published scores below.",
    ...barring.map((caveat) => caveat.text),
  ];
  return el("tr", { class: "caveats" }, el("td", { colspan: 9 }, bulletList(texts.filter(Boolean))));
}

function summary(tasks) {
  const titles = [
    ["Task"],
    ["pass@1", "number"],
    ["95 % interval", "number"],
    ["0–100\u00a0%"],
    ["Problems × samples", "number"],
    ["cons@k", "number"],
    ["Truncated", "number"],
    ["Mean tokens", "number"],
    ["Grader, tier"],
  ];
  return el(
    "div",
    { class: "summary" },
    el(
      "div",
      { class: "wide" },
      el(
        "table",
        {},
        el(
          "thead",
          {},
          el(
            "tr",
            {},
            titles.map(([name, kind]) => el("th", { class: kind }, name)),
          ),
        ),
        el(
          "tbody",
          {},
          tasks.map((task) => [
            summaryRow(task),
            barringRow(task),
            (task.published ?? []).map(publishedRow),
          ]),
        ),
      ),
    ),
    el(
      "p",
      { class: "muted" },
      "Bold: this evaluation. Grey with hollow dots: scores published by others, with other ",
      "numbers of samples, prompts and graders, so they are reference points, not a like-for-like ",
      "comparison.",
    ),
  );
}

// ---- sections

function formatRating({ value, low, high, contests, note }) {
  const interval = low == null ? "" : ` (${formatInteger(low)} – ${formatInteger(high)})`;
  return `${formatInteger(value)}${interval}, ${formatInteger(contests)} contests; ${note}`;
}

function taskSection(task, browser) {
  const { caveats, counts, rating, tokens, breakdown } = task;
  const {
    origin,
    sha256,
    problems,
    bad_rows: bad,
    seen_in_training: contaminated,
  } = task.data;
  const tags = Object.entries(breakdown ?? {}).filter(([, rows]) => rows.length);
  return el(
    "section",
    {},
    el("h2", {}, task.title, " ", el("small", {}, `${task.split} split`)),
    factList([
      ["pass@1", formatScore(task["pass@1"])],
      ["Mean reward", task.mean_reward && formatReward(task.mean_reward)],
      ["Rating", rating && formatRating(rating)],
      [
        "Samples",
        `${formatSampleCount(task)}; ${formatInteger(counts.failed)} failed, ` +
          `${formatInteger(counts.infrastructure)} not graded (infrastructure), ` +
          `${formatInteger(counts.truncated)} truncated`,
      ],
      ["Sampling", `${describeValue(task.sampling)}; style ${task.style}`],
      ["Options", describeValue(task.options)],
      [
        "Tokens",
        tokens &&
          `${formatInteger(tokens.prompt)} in prompts, ` +
            `${formatInteger(tokens.generated)} generated`,
      ],
      [
        "Data",
        el(
          "span",
          {},
          `${formatInteger(problems)} problems of ${origin}, SHA-256 `,
          shortHash(sha256),
        ),
      ],
    ]),
    caveatList(caveats),
    bad?.length > 0 &&
      foldedSection(
        `Rows of the data that could not be read: ${formatInteger(bad.length)}`,
        bulletList(bad),
      ),
    contaminated?.length > 0 &&
      foldedSection(
        `Problems that are in the training data: ${formatInteger(contaminated.length)}`,
        bulletList(contaminated),
      ),
    el(
      "div",
      { class: "charts" },
      sampleCountFigure(task),
      budgetFigure(task),
      methodFigure(task),
      lengthFigure(task),
      verdictFigure(task),
      tags.map(([tag, rows]) => tagFigure(tag, rows)),
    ),
    browser.element,
  );
}

// ---- assembly

const { results, tasks } = JSON.parse(document.getElementById("data").textContent);
// A score that is not the benchmark's has another name.
results.tasks.forEach((task, index) => {
  task.title = tasks[index].name;
});
const browsers = new Map(
  results.tasks.map((task, index) => [task.task, sampleBrowser(task.task, tasks[index])]),
);
document
  .querySelector("main")
  .append(
    header(results),
    summary(results.tasks),
    ...results.tasks.map((task) => taskSection(task, browsers.get(task.task))),
  );

// #task scrolls to a section, #task/problem selects a problem; both parts may be URL-encoded.
function followFragment() {
  const [, task, problem] = /^#([^/]*)\/?(.*)$/s.exec(location.hash) ?? [];
  const browser = browsers.get(decodeFragment(task ?? ""));
  if (!browser) return;
  if (problem) browser.select(decodeFragment(problem));
  else browser.element.closest("section").scrollIntoView();
}

window.addEventListener("hashchange", followFragment);
followFragment();
