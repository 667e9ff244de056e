"use strict";
/* The rollout viewer: a list of a step's trajectories, and one of them to read.
   What models and graders wrote enters the document through textContent only. */

const PAGE_ROWS = 50;
const SORTS = {
  "longest first": (t) => -(t.response_tokens ?? -1),
  "shortest first": (t) => t.response_tokens ?? Infinity,
  "highest reward first": (t) => -(t.reward ?? -Infinity),
  "lowest reward first": (t) => t.reward ?? Infinity,
  "most seconds first": (t) => -(t.seconds ?? -1),
  "in order": (t) => t.id,
};

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Shows control characters by their pictures, and marks that reorder text by their number. */
function showControls(text) {
  return text
    .replace(/[\u0000-\u0008\u000b-\u001f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0)))
    .replace(/\u007f/g, "\u2421")
    .replace(/[\u0080-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]/g,
      (c) => `\u27e8U+${c.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}\u27e9`);
}

function formatNumber(value, digits = 0) {
  if (value === null || value === undefined) return "\u2013";
  return value.toLocaleString("en", { maximumFractionDigits: digits });
}

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

class RolloutViewer {
  constructor(place, chunks, number) {
    Object.assign(this, { place, chunks, number, cache: new Map(), page: 0, rows: [], query: 0 });
    if (!chunks.length) {
      place.append(make("p", {}, "The run has no trajectories yet."));
      return;
    }
    this.build();
    const last = chunks.findLastIndex((chunk) => chunk.step !== null);
    this.step.value = String(Math.max(last, 0));
    new IntersectionObserver((entries, observer) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      observer.disconnect();
      if (!this.started) this.refresh();
    }, { rootMargin: "400px" }).observe(place);
  }

  build() {
    const again = () => { this.page = 0; this.refresh(); };
    const label = (text, control) => make("label", {}, make("span", {}, text), control);
    this.step = make("select", { onchange: again },
      make("option", { value: "all" }, "all steps"),
      ...this.chunks.map((chunk, i) => make("option", { value: i },
        `${chunk.step === null ? "no step yet" : `step ${chunk.step}`} (${chunk.rows})`)));
    this.fate = make("select", { onchange: again }, make("option", { value: "" }, "all"),
      ...["trained", "filtered", "failed", "waiting", "running", "validation"].map(
        (fate) => make("option", { value: fate }, fate)));
    this.sort = make("select", { onchange: again },
      ...Object.keys(SORTS).map((name) => make("option", { value: name }, name)));
    this.search = make("input", { type: "search", placeholder: "text, prompt, verdict, reason" });
    let timer = 0;
    this.search.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(again, 200); });
    this.list = make("ol", { class: "list", "aria-label": "Trajectories" });
    this.status = make("span", { role: "status" });
    this.back = make("button", { type: "button", onclick: () => this.turn(-1) }, "Back");
    this.next = make("button", { type: "button", onclick: () => this.turn(1) }, "Next");
    this.detail = make("div", { class: "detail", "aria-live": "polite", tabindex: "-1" },
      make("p", { class: "note" }, "Choose a trajectory to read it."));
    this.place.append(
      make("div", { class: "controls" }, label("Step", this.step), label("What became of it", this.fate),
        label("Sort", this.sort), label("Search", this.search)),
      make("div", { class: "panes" },
        make("div", { class: "side" }, this.list,
          make("p", { class: "pager" }, this.back, this.status, this.next)),
        this.detail));
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
    const key = SORTS[this.sort.value];
    const keyed = rows.map((row) => [key(row), row]);
    keyed.sort((a, b) => (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : a[1].id - b[1].id));
    this.rows = keyed.map((pair) => pair[1]);
    this.page = Math.min(this.page, Math.max(Math.ceil(this.rows.length / PAGE_ROWS) - 1, 0));
    this.showList();
  }

  matches(row, wanted) {
    const texts = [row.prompt, row.verdict, row.reason, row.replica, row.text?.prompt,
      row.text?.response, row.text?.truth];
    return texts.some((text) => text && text.toLowerCase().includes(wanted));
  }

  turn(by) {
    this.page += by;
    this.showList();
  }

  showList() {
    const from = this.page * PAGE_ROWS, shown = this.rows.slice(from, from + PAGE_ROWS);
    this.list.replaceChildren(...shown.map((row) => this.makeEntry(row)));
    this.back.disabled = this.page === 0;
    this.next.disabled = from + PAGE_ROWS >= this.rows.length;
    this.status.textContent = shown.length
      ? `${from + 1} to ${from + shown.length} of ${this.rows.length}` : "No such trajectory.";
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

  async openTrajectory(step, id) {
    this.started = true;
    const index = this.chunks.findIndex((chunk) => chunk.step === step);
    const row = index < 0 ? undefined : (await this.readChunk(index)).find((one) => one.id === id);
    if (!row) {
      this.detail.replaceChildren(make("p", {}, "This trajectory is not part of the page."));
      this.detail.scrollIntoView({ block: "nearest" });
      return;
    }
    this.current = id;
    if (!this.rows.includes(row)) {
      this.step.value = String(index);
      this.fate.value = this.search.value = "";
      await this.refresh();
      this.page = Math.floor(Math.max(this.rows.indexOf(row), 0) / PAGE_ROWS);
    }
    this.showList();
    this.showDetail(row);
    const side = this.list.querySelector("[aria-current]");
    if (side) this.list.scrollTop = side.offsetTop - this.list.offsetTop - 60;
    this.detail.scrollIntoView({ block: "nearest" });
  }

  showDetail(row) {
    const facts = {
      Reward: formatNumber(row.reward, 4), Verdict: row.verdict, Reason: row.reason,
      Prompt: row.prompt, "In its group": row.session === null ? null : row.session + 1,
      Tokens: `${formatNumber(row.prompt_tokens)} + ${formatNumber(row.response_tokens)}` +
        (row.limit ? ` of ${formatNumber(row.limit)}` : ""),
      Replica: row.replica,
      Time: row.started === null ? null
        : `${formatNumber(row.seconds, 1)} s, from ${formatNumber(row.started, 1)} s`,
      "Weight versions": row.first_version === null ? null
        : row.first_version === row.last_version ? row.first_version
          : `${row.first_version} to ${row.last_version}`,
    };
    const list = make("dl", { class: "facts" });
    for (const [name, value] of Object.entries(facts)) {
      if (value === null || value === undefined || value === "") continue;
      list.append(make("dt", {}, name), make("dd", {}, showControls(String(value))));
    }
    const title = row.step === null ? "no step yet" : `step ${row.step}`;
    const parts = [make("h3", {}, make("span", { class: `fate ${row.fate}` }, row.fate), ` ${title}`),
      list];
    if (row.text) {
      const versions = row.text.versions;
      if (versions?.length > 1) parts.push(this.makeVersions(versions));
      parts.push(...this.makeText("Prompt", row.text.prompt));
      parts.push(...this.makeText("Response", row.text.response));
      if (row.text.truth !== null) parts.push(...this.makeText("Ground truth", row.text.truth));
    } else {
      parts.push(make("p", { class: "note" }, row.withheld
        ? "Its text does not fit into this page; the run's folder has it."
        : "The run kept no text of it (a setting chooses which texts are kept)."));
    }
    this.detail.replaceChildren(...parts);
    this.detail.scrollTop = 0;
  }

  makeText(title, text) {
    return [make("h4", {}, title), make("pre", {}, showControls(text))];
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
