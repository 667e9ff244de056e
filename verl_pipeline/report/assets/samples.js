"use strict";
/* The sample viewer: a list of an evaluation's problems, and the samples of one of them to read. */

const OPEN_SAMPLES = 5;

class SampleViewer extends ListViewer {
  sorts = {
    "in order": () => 0,
    "fewest accepted first": (p) => p.accepted / (p.count || 1),
    "most accepted first": (p) => -p.accepted / (p.count || 1),
  };
  hint = "problem, text, reason";
  none = "No such problem.";

  constructor(place, problems, task) {
    super(place);
    Object.assign(this, { problems, task });
    const totals = {};
    for (const { verdicts } of problems) {
      for (const [verdict, count] of Object.entries(verdicts)) totals[verdict] = (totals[verdict] ?? 0) + count;
    }
    this.verdict = makeSelect([["", "all"], ...Object.entries(totals).map(
      ([verdict, count]) => [verdict, `${verdict.replaceAll("_", " ")} (${formatNumber(count)})`])]);
    this.build("Problems", { Verdict: this.verdict }, "");
    this.refresh();
  }

  refresh() {
    const wanted = this.search.value.trim().toLowerCase(), verdict = this.verdict.value;
    this.setRows(this.problems.filter((problem) =>
      (!verdict || problem.verdicts[verdict]) && this.matches(problem, wanted)));
    this.choose(this.rows.includes(this.current) ? this.current : this.rows[0]);
  }

  matches({ id, prompt, samples }, wanted) {
    const texts = samples.flatMap(({ reason, answer, response }) => [reason, answer, response]);
    return [id, prompt, ...texts].some((text) => text?.toLowerCase().includes(wanted));
  }

  makeEntry(problem) {
    const { id, accepted, count } = problem;
    return make("li", {}, make("a", {
      href: `#${encodeURIComponent(this.task)}/${encodeURIComponent(id)}`,
      "aria-current": problem === this.current ? "true" : null,
    },
      make("span", {}, showControls(id)),
      make("span", { class: accepted ? "figures" : "figures fate failed" }, `${accepted}/${count}`)));
  }

  /** Follows `#<task>/<problem>`, both of which may be URL-encoded. */
  follow(hash) {
    const [, task, id] = /^#([^/]*)\/(.+)$/s.exec(hash) ?? [];
    if (decodeText(task ?? "") !== this.task) return false;
    const problem = this.problems.find((one) => one.id === decodeText(id));
    if (problem && !this.rows.includes(problem)) {
      this.verdict.value = this.search.value = "";
      this.refresh();
    }
    if (problem) this.findPage(problem);
    this.choose(problem);
    this.detail.scrollIntoView({ block: "nearest" });
    return true;
  }

  choose(problem) {
    this.current = problem;
    this.showList();
    this.showDetail(...(problem ? this.describe(problem) : [make("p", {}, this.none)]));
  }

  describe({ id, tags, prompt, accepted, count, samples }) {
    const shown = samples.filter(({ verdict }) => !this.verdict.value || verdict === this.verdict.value);
    return [
      make("h3", {}, showControls(id)),
      makeFacts({ ...tags, Accepted: `${accepted} of ${count} samples; ${shown.length} shown` }),
      ...makeText("Prompt", prompt),
      make("h4", {}, "Samples"),
      ...shown.map((sample, i) => this.makeSample(sample, i < OPEN_SAMPLES)),
    ];
  }

  makeSample({ sample, verdict, facts, reason, answer, response }, isOpen) {
    return make("details", { class: "sample", open: isOpen ? "" : null },
      make("summary", {},
        make("span", { class: `fate ${verdict}` }, verdict.replaceAll("_", " ")),
        ` sample ${sample}, ${showControls(facts)}`),
      makeFacts({ Reason: reason, Answer: answer }),
      make("pre", {}, showControls(response)));
  }
}
