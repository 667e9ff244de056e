// Builds a task's sample browser: a filtered list of problems, and the selected problem's samples.

const PROBLEMS_A_PAGE = 60;
const SAMPLES_A_PAGE = 5;

const verdictText = (verdict) => verdict.replaceAll("_", " ");
const verdictColours = new Map([
  ["accepted", "good"],
  ["infrastructure", "grey"],
  ["ungraded", "grey"],
]);

function chooseColour(verdict) {
  if (!verdictColours.has(verdict))
    verdictColours.set(verdict, `c${1 + ((verdictColours.size - 3) % (SERIES - 1))}`);
  return verdictColours.get(verdict);
}

function decodeFragment(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // a literal %, not an escape
  }
}

// Shows a text in results_page.py's form: [text], or [start, number of omitted characters, end].
function excerptBlock(parts) {
  const cut = (count) =>
    el("span", { class: "cut" }, `${formatInteger(count)} characters are left out here`);
  return el(
    "pre",
    {},
    parts.map((part) => (typeof part === "number" ? cut(part) : part)),
  );
}

function pager(what, page, pages, go) {
  if (pages < 2) return null;
  const button = (text, to) => {
    const made = el("button", { type: "button", disabled: to < 0 || to >= pages }, text);
    made.addEventListener("click", () => go(to));
    return made;
  };
  return el(
    "nav",
    { class: "pager", "aria-label": what },
    button("Previous", page - 1),
    `${page + 1} of ${pages}`,
    button("Next", page + 1),
  );
}

function sampleArticle({ sample, verdict, facts, reason, answer, response }) {
  const known = Object.entries(facts).filter(([, value]) => value != null);
  const line = (name, parts) =>
    parts[0] && el("p", {}, el("small", {}, `${name}: `), parts.join(" … "));
  return el(
    "article",
    { "data-verdict": verdict },
    el(
      "header",
      {},
      el("span", { class: `verdict ${chooseColour(verdict)}` }, verdictText(verdict)),
      el("small", {}, `sample ${sample}`),
      known.map(([name, value]) => el("small", {}, `${name} ${value}`)),
    ),
    line("reason", reason),
    line("answer", answer),
    excerptBlock(response),
  );
}

// Returns {element, select}; select(id) shows a problem and scrolls to it.
function sampleBrowser(task, { problems, notes }) {
  const byId = new Map(problems.map((problem) => [problem.id, problem]));
  const totals = new Map();
  for (const [verdict, count] of problems.flatMap(({ verdicts }) => Object.entries(verdicts))) {
    totals.set(verdict, (totals.get(verdict) ?? 0) + count);
  }

  const search = el("input", {
    type: "search",
    placeholder: "problem id",
    "aria-label": "Search by problem id",
  });
  const option = ([verdict, count]) =>
    el("option", { value: verdict }, `${verdictText(verdict)} (${formatInteger(count)})`);
  const filter = el(
    "select",
    { "aria-label": "Filter by verdict" },
    el("option", { value: "" }, "all verdicts"),
    [...totals].map(option),
  );
  const list = el("div");
  const shown = el("div", { class: "problem" });
  let chosen = problems[0];
  let listPage = 0;
  let samplePage = 0;

  const findMatches = () =>
    problems.filter(
      ({ id, verdicts }) =>
        id.toLowerCase().includes(search.value.trim().toLowerCase()) &&
        (!filter.value || verdicts[filter.value]),
    );

  function problemEntry(problem) {
    const { accepted = 0, ...others } = problem.verdicts;
    const count = Object.values(others).reduce((sum, more) => sum + more, accepted);
    const colour = accepted === 0 ? "c1" : accepted < count ? null : "good";
    const href = `#${encodeURIComponent(task)}/${encodeURIComponent(problem.id)}`;
    return el(
      "li",
      {},
      el(
        "a",
        { href, "aria-current": problem === chosen },
        problem.id,
        el("span", { class: count ? colour : "grey" }, `${accepted}/${count}`),
      ),
    );
  }

  function drawList() {
    const found = findMatches();
    const from = listPage * PROBLEMS_A_PAGE;
    list.replaceChildren(
      el(
        "small",
        {},
        `${formatInteger(found.length)} of ${formatInteger(problems.length)} problems, ` +
          "with accepted / all samples",
      ),
      el("ul", { class: "problems" }, found.slice(from, from + PROBLEMS_A_PAGE).map(problemEntry)),
      ...[
        pager("Pages of problems", listPage, Math.ceil(found.length / PROBLEMS_A_PAGE), (page) => {
          listPage = page;
          drawList();
        }),
      ].filter(Boolean),
    );
  }

  function drawProblem() {
    if (!chosen) return shown.replaceChildren(el("p", { class: "muted" }, "No such problem."));
    const { id, tags, prompt, verdicts, samples } = chosen;
    const all = Object.values(verdicts).reduce((sum, count) => sum + count, 0);
    const found = samples.filter(({ verdict }) => !filter.value || verdict === filter.value);
    const from = samplePage * SAMPLES_A_PAGE;
    const pages = Math.ceil(found.length / SAMPLES_A_PAGE);
    const turner = () =>
      pager("Pages of samples", samplePage, pages, (page) => {
        samplePage = page;
        drawProblem();
      });
    const left = all - samples.length;
    const elsewhere = left ? ` ${formatInteger(left)} more are only in ${task}/samples.jsonl.` : "";
    shown.replaceChildren(
      ...[
        el("h3", {}, id),
        el(
          "p",
          { class: "muted" },
          Object.entries(tags)
            .map(([name, value]) => `${name}: ${value}`)
            .join(", "),
        ),
        el("details", { open: "" }, el("summary", {}, "Prompt"), excerptBlock(prompt)),
        el(
          "p",
          { class: "muted" },
          `${verdicts.accepted ?? 0} of ${all} samples accepted; ` +
            `${found.length} shown.${elsewhere}`,
        ),
        turner(),
        ...found.slice(from, from + SAMPLES_A_PAGE).map(sampleArticle),
        turner(),
      ].filter(Boolean),
    );
  }

  function applyFilters() {
    const found = findMatches();
    if (!found.includes(chosen)) chosen = found[0];
    listPage = samplePage = 0;
    drawList();
    drawProblem();
  }

  function select(id) {
    if (!byId.has(id))
      return shown.replaceChildren(el("p", {}, `There is no problem ${id} in ${task}.`));
    chosen = byId.get(id);
    samplePage = 0;
    if (!findMatches().includes(chosen)) search.value = filter.value = "";
    listPage = Math.floor(findMatches().indexOf(chosen) / PROBLEMS_A_PAGE);
    const { scrollTop } = list.querySelector("ul");
    drawList();
    list.querySelector("ul").scrollTop = scrollTop;
    list.querySelector("[aria-current]").scrollIntoView({ block: "nearest" });
    drawProblem();
    const { top } = shown.getBoundingClientRect();
    if (top < 0 || top > innerHeight - 160) shown.scrollIntoView();
  }

  search.addEventListener("input", applyFilters);
  filter.addEventListener("change", applyFilters);
  applyFilters();
  const element = el(
    "div",
    { class: "samples" },
    el("h3", {}, "Samples"),
    bulletList(notes, "notes muted"),
    el(
      "div",
      { class: "browser" },
      el("div", {}, el("div", { class: "controls" }, search, filter), list),
      shown,
    ),
  );
  return { element, select };
}
