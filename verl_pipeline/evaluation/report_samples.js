// A task's samples: a list of problems, by verdict and id, and of the chosen one its prompt and samples, page by page.

const PROBLEMS_A_PAGE = 60, SAMPLES_A_PAGE = 5;

const words = (verdict) => verdict.replaceAll("_", " ");
const colours = new Map([["accepted", "good"], ["infrastructure", "grey"], ["ungraded", "grey"]]);

function colourOf(verdict) {
  if (!colours.has(verdict)) colours.set(verdict, `c${1 + ((colours.size - 3) % (SERIES - 1))}`);
  return colours.get(verdict);
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // a % of its own
  }
}

// A text as report.py embeds it: [text], or [beginning, characters left out, end].
function excerpt(parts) {
  const cut = (count) => el("span", { class: "cut" }, `${integer(count)} characters are left out here`);
  return el("pre", {}, parts.map((part) => (typeof part === "number" ? cut(part) : part)));
}

function pager(what, page, pages, go) {
  if (pages < 2) return null;
  const button = (text, to) => {
    const made = el("button", { type: "button", disabled: to < 0 || to >= pages }, text);
    made.addEventListener("click", () => go(to));
    return made;
  };
  return el("nav", { class: "pager", "aria-label": what },
    button("Previous", page - 1), `${page + 1} of ${pages}`, button("Next", page + 1));
}

function sampleArticle({ sample, verdict, facts, reason, answer, response }) {
  const known = Object.entries(facts).filter(([, value]) => value != null);
  const line = (name, parts) => parts[0] && el("p", {}, el("small", {}, `${name}: `), parts.join(" … "));
  return el("article", { "data-verdict": verdict },
    el("header", {},
      el("span", { class: `verdict ${colourOf(verdict)}` }, words(verdict)),
      el("small", {}, `sample ${sample}`),
      known.map(([name, value]) => el("small", {}, `${name} ${value}`))),
    line("reason", reason), line("answer", answer),
    excerpt(response));
}

// {element, select}: select(id) shows a problem and brings it into sight.
function sampleBrowser(task, { problems, notes }) {
  const byId = new Map(problems.map((problem) => [problem.id, problem]));
  const totals = new Map();
  for (const [verdict, count] of problems.flatMap(({ verdicts }) => Object.entries(verdicts))) {
    totals.set(verdict, (totals.get(verdict) ?? 0) + count);
  }

  const search = el("input", { type: "search", placeholder: "problem id", "aria-label": "Search by problem id" });
  const option = ([verdict, count]) => el("option", { value: verdict }, `${words(verdict)} (${integer(count)})`);
  const filter = el("select", { "aria-label": "Filter by verdict" },
    el("option", { value: "" }, "every verdict"), [...totals].map(option));
  const list = el("div"), shown = el("div", { class: "problem" });
  let chosen = problems[0], listPage = 0, samplePage = 0;

  const matching = () => problems.filter(({ id, verdicts }) =>
    id.toLowerCase().includes(search.value.trim().toLowerCase()) && (!filter.value || verdicts[filter.value]));

  function listed(problem) {
    const { accepted = 0, ...others } = problem.verdicts;
    const count = Object.values(others).reduce((sum, more) => sum + more, accepted);
    const colour = accepted === 0 ? "c1" : accepted < count ? null : "good";
    const href = `#${encodeURIComponent(task)}/${encodeURIComponent(problem.id)}`;
    return el("li", {}, el("a", { href, "aria-current": problem === chosen },
      problem.id, el("span", { class: count ? colour : "grey" }, `${accepted}/${count}`)));
  }

  function drawList() {
    const found = matching();
    const from = listPage * PROBLEMS_A_PAGE;
    list.replaceChildren(
      el("small", {}, `${integer(found.length)} of ${integer(problems.length)} problems, with accepted / all samples`),
      el("ul", { class: "problems" }, found.slice(from, from + PROBLEMS_A_PAGE).map(listed)),
      ...[pager("Pages of problems", listPage, Math.ceil(found.length / PROBLEMS_A_PAGE), (page) => {
        listPage = page;
        drawList();
      })].filter(Boolean));
  }

  function drawProblem() {
    if (!chosen) return shown.replaceChildren(el("p", { class: "muted" }, "No such problem."));
    const { id, tags, prompt, verdicts, samples } = chosen;
    const all = Object.values(verdicts).reduce((sum, count) => sum + count, 0);
    const found = samples.filter(({ verdict }) => !filter.value || verdict === filter.value);
    const from = samplePage * SAMPLES_A_PAGE;
    const pages = Math.ceil(found.length / SAMPLES_A_PAGE);
    const turner = () => pager("Pages of samples", samplePage, pages, (page) => {
      samplePage = page;
      drawProblem();
    });
    const left = all - samples.length;
    const elsewhere = left ? ` ${integer(left)} more are in ${task}/samples.jsonl only.` : "";
    shown.replaceChildren(...[
      el("h3", {}, id),
      el("p", { class: "muted" }, Object.entries(tags).map(([name, value]) => `${name}: ${value}`).join(", ")),
      el("details", { open: "" }, el("summary", {}, "Prompt"), excerpt(prompt)),
      el("p", { class: "muted" },
        `${verdicts.accepted ?? 0} of ${all} samples accepted; ${found.length} shown.${elsewhere}`),
      turner(), ...found.slice(from, from + SAMPLES_A_PAGE).map(sampleArticle), turner(),
    ].filter(Boolean));
  }

  function narrow() {
    const found = matching();
    if (!found.includes(chosen)) chosen = found[0];
    listPage = samplePage = 0;
    drawList();
    drawProblem();
  }

  function select(id) {
    if (!byId.has(id)) return shown.replaceChildren(el("p", {}, `There is no problem ${id} in ${task}.`));
    chosen = byId.get(id);
    samplePage = 0;
    if (!matching().includes(chosen)) search.value = filter.value = "";
    listPage = Math.floor(matching().indexOf(chosen) / PROBLEMS_A_PAGE);
    const { scrollTop } = list.querySelector("ul");
    drawList();
    list.querySelector("ul").scrollTop = scrollTop;
    list.querySelector("[aria-current]").scrollIntoView({ block: "nearest" });
    drawProblem();
    const { top } = shown.getBoundingClientRect();
    if (top < 0 || top > innerHeight - 160) shown.scrollIntoView();
  }

  search.addEventListener("input", narrow);
  filter.addEventListener("change", narrow);
  narrow();
  const element = el("div", { class: "samples" },
    el("h3", {}, "Samples"),
    bullets(notes, "notes muted"),
    el("div", { class: "browser" }, el("div", {}, el("div", { class: "controls" }, search, filter), list), shown));
  return { element, select };
}
