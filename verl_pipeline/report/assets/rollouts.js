"use strict";
/* The rollout viewer: a list of a step's trajectories, and one of them to read. */

const FATES = ["trained", "filtered", "failed", "waiting", "queued", "running", "validation"];

/** Unpacks a chunk: base64 of gzip of JSON, columns of trajectories. */
async function unpack(chunk) {
  const bytes = Uint8Array.from(atob(chunk.packed), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const columns = JSON.parse(await new Response(stream).text());
  return columns.id.map((_, i) => {
    const row = { step: chunk.step };
    for (const name in columns) row[name] = columns[name][i];
    return row;
  });
}

class RolloutViewer extends ListViewer {
  sorts = {
    "longest first": (t) => -(t.response_tokens ?? -1),
    "shortest first": (t) => t.response_tokens ?? Infinity,
    "highest reward first": (t) => -(t.reward ?? -Infinity),
    "lowest reward first": (t) => t.reward ?? Infinity,
    "most seconds first": (t) => -(t.seconds ?? -1),
    "in order": (t) => t.id,
  };
  hint = "text, prompt, verdict, reason";
  none = "No such trajectory.";

  constructor(place, chunks, number) {
    super(place);
    Object.assign(this, { chunks, number, cache: new Map([[-1, []]]), query: 0 });
    if (!chunks.length) {
      place.append(make("p", {}, "The run has no trajectories yet."));
      return;
    }
    this.step = makeSelect([["all", "all steps"], ...chunks.map((chunk, i) =>
      [i, `${chunk.step === null ? "no step yet" : `step ${chunk.step}`} (${chunk.rows})`])]);
    this.fate = makeSelect([["", "all"], ...FATES.map((fate) => [fate, fate])]);
    this.build("Trajectories", { Step: this.step, "What became of it": this.fate },
      make("p", { class: "note" }, "Choose a trajectory to read it."));
    const last = chunks.findLastIndex((chunk) => chunk.step !== null);
    this.step.value = String(Math.max(last, 0));
    new IntersectionObserver((entries, observer) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      observer.disconnect();
      if (!this.started) this.refresh();
    }, { rootMargin: "400px" }).observe(place);
  }

  async readChunk(index) {
    if (!this.cache.has(index)) this.cache.set(index, await unpack(this.chunks[index]));
    return this.cache.get(index);
  }

  /** Lists what step, fate and search select; a later call makes an earlier one stop. */
  async refresh() {
    this.started = true;
    const query = ++this.query;
    const indices = this.step.value === "all" ? this.chunks.keys() : [+this.step.value];
    const wanted = this.search.value.toLowerCase(), fate = this.fate.value;
    const rows = [];
    for (const index of indices) {
      const chunk = await this.readChunk(index);
      if (query !== this.query) return;
      for (const row of chunk) {
        if (fate && row.fate !== fate) continue;
        if (!wanted || this.matches(row, wanted)) rows.push(row);
      }
      if (this.step.value === "all") this.status.textContent = `${rows.length} found...`;
    }
    this.setRows(rows);
  }

  matches(row, wanted) {
    const texts = [row.prompt, row.verdict, row.reason, row.replica, row.text?.prompt,
      row.text?.response, row.text?.truth];
    return texts.some((text) => text && text.toLowerCase().includes(wanted));
  }

  makeEntry(row) {
    const step = row.step === null ? "none" : row.step;
    const start = row.text ? showControls(row.text.response.slice(0, 120)) : "no text";
    return make("li", {}, make("a", {
      href: `#rollout-${this.number}-${step}-${row.id}`,
      "aria-current": row.id === this.current ? "true" : null,
    },
      make("span", { class: `fate ${row.fate}` }, row.fate),
      make("span", { class: "figures" },
        `${formatNumber(row.response_tokens)} tokens, reward ${formatNumber(row.reward, 3)}`),
      make("span", { class: row.text ? "start" : "start note" }, start)));
  }

  /** Follows `#rollout-<run>-<step>-<trajectory>`; returns whether the link is to this run's. */
  follow(hash) {
    const found = /^#rollout-(\d+)-(\d+|none)-(\d+)$/.exec(hash);
    if (found?.[1] !== this.number || !this.chunks.length) return false;
    this.openTrajectory(found[2] === "none" ? null : +found[2], +found[3]);
    return true;
  }

  async openTrajectory(step, id) {
    this.started = true;
    const index = this.chunks.findIndex((chunk) => chunk.step === step);
    const row = (await this.readChunk(index)).find((one) => one.id === id);
    if (row) {
      this.current = id;
      if (!this.rows.includes(row)) {
        this.step.value = String(index);
        this.fate.value = this.search.value = "";
        await this.refresh();
        this.findPage(row);
      }
      this.showList();
      this.showDetail(...this.describe(row));
    } else {
      this.showDetail(make("p", {}, "This trajectory is not part of the page."));
    }
    this.detail.scrollIntoView({ block: "nearest" });
  }

  describe(row) {
    const title = row.step === null ? "no step yet" : `step ${row.step}`;
    const parts = [
      make("h3", {}, make("span", { class: `fate ${row.fate}` }, row.fate), ` ${title}`),
      makeFacts({
        Reward: formatNumber(row.reward, 4), Verdict: row.verdict, Reason: row.reason,
        Prompt: row.prompt, "In its group": row.session === null ? null : row.session + 1,
        Tokens: `${formatNumber(row.prompt_tokens)} + ${formatNumber(row.response_tokens)}` +
          (row.limit ? ` of ${formatNumber(row.limit)}` : ""),
        Replica: row.replica, "Graded by": row.reward_worker,
        Time: row.started === null ? null
          : `${formatNumber(row.seconds, 1)} s, from ${formatNumber(row.started, 1)} s`,
        "First token": row.to_first_token === null ? null
          : `after ${formatNumber(row.to_first_token, 2)} s`,
        "Waited for its place": row.waited ? `${formatNumber(row.waited, 1)} s` : null,
        "Weight versions": row.first_version === null ? null
          : row.first_version === row.last_version ? row.first_version
            : `${row.first_version} to ${row.last_version}`,
      })];
    const versions = row.text?.versions ?? row.spans;
    if (versions?.length > 1) parts.push(this.makeVersions(versions));
    if (row.text) {
      parts.push(...makeText("Prompt", row.text.prompt), ...makeText("Response", row.text.response));
      if (row.text.truth !== null) parts.push(...makeText("Ground truth", row.text.truth));
    } else {
      parts.push(make("p", { class: "note" }, row.withheld
        ? "Its text does not fit into this page; the run's folder has it."
        : "The run kept no text of it (a setting chooses which texts are kept)."));
    }
    return parts;
  }

  /** A strip of the response's tokens, one part for each weight version that sampled some. */
  makeVersions(versions) {
    const strip = make("div", { class: "versions" });
    versions.forEach(([version, tokens], i) => {
      const part = make("span", { class: `part${i % 6}`, title: `version ${version}: ${tokens} tokens` },
        `v${version}: ${formatNumber(tokens)}`);
      part.style.flexGrow = tokens;
      strip.append(part);
    });
    return make("div", {}, make("h4", {}, "Tokens by weight version"), strip);
  }
}
