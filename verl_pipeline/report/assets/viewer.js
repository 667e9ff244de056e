"use strict";
/* What the viewers share: elements, texts, and a list of rows with one of them to read beside it.
   What models, graders and data sets wrote enters the document through textContent only. */

const PAGE_ROWS = 50;

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

/** Decodes a part of a link; a literal % is no escape. */
function decodeText(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function makeSelect(options) {
  return make("select", {}, ...options.map(([value, text]) => make("option", { value }, text)));
}

/** A list of facts; unknown and empty ones are left out. */
function makeFacts(facts) {
  const list = make("dl", { class: "facts" });
  for (const [name, value] of Object.entries(facts)) {
    if (value === null || value === undefined || value === "") continue;
    list.append(make("dt", {}, name), make("dd", {}, showControls(String(value))));
  }
  return list;
}

function makeText(title, text) {
  return [make("h4", {}, title), make("pre", {}, showControls(text))];
}

/** Classes give it `sorts`, `refresh`, `makeEntry` and, where it has no rows, `none`. */
class ListViewer {
  constructor(place) {
    Object.assign(this, { place, page: 0, rows: [], current: null });
  }

  /** Builds controls, which call `refresh`, list and detail. */
  build(name, controls, detail) {
    const again = () => { this.page = 0; this.refresh(); };
    let timer = 0;
    this.sort = makeSelect(Object.keys(this.sorts).map((sort) => [sort, sort]));
    this.search = make("input", { type: "search", placeholder: this.hint });
    this.search.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(again, 200); });
    for (const control of [...Object.values(controls), this.sort]) control.addEventListener("change", again);
    this.list = make("ol", { class: "list", "aria-label": name });
    this.status = make("span", { role: "status" });
    this.back = make("button", { type: "button", onclick: () => this.turn(-1) }, "Back");
    this.next = make("button", { type: "button", onclick: () => this.turn(1) }, "Next");
    this.detail = make("div", { class: "detail", "aria-live": "polite", tabindex: "-1" }, detail);
    this.place.append(
      make("div", { class: "controls" },
        ...Object.entries({ ...controls, Sort: this.sort, Search: this.search }).map(
          ([text, control]) => make("label", {}, make("span", {}, text), control))),
      make("div", { class: "panes" },
        make("div", { class: "side" }, this.list,
          make("p", { class: "pager" }, this.back, this.status, this.next)),
        this.detail));
  }

  setRows(rows) {
    const key = this.sorts[this.sort.value];
    const keyed = rows.map((row) => [key(row), row]);
    keyed.sort((a, b) => (a[0] < b[0] ? -1 : +(a[0] > b[0])));
    this.rows = keyed.map((pair) => pair[1]);
    this.page = Math.min(this.page, Math.max(Math.ceil(this.rows.length / PAGE_ROWS) - 1, 0));
    this.showList();
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
      ? `${from + 1} to ${from + shown.length} of ${this.rows.length}` : this.none;
  }

  /** Turns to the page of a row. */
  findPage(row) {
    this.page = Math.floor(Math.max(this.rows.indexOf(row), 0) / PAGE_ROWS);
  }

  /** Shows what was chosen, and where it is in the list. */
  showDetail(...parts) {
    this.detail.replaceChildren(...parts);
    this.detail.scrollTop = 0;
    const side = this.list.querySelector("[aria-current]");
    if (side) this.list.scrollTop = side.offsetTop - this.list.offsetTop - 60;
  }
}
