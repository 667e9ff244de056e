// Runs the scripts of a results page on a document of plain objects, and prints the page's texts as
// JSON: {header, summary, sections}. For machines without a browser: node page_text.js report.html

"use strict";
const fs = require("fs");
const vm = require("vm");

class Element {
  constructor(tag) {
    Object.assign(this, { tag, children: [], attributes: {}, value: "" });
  }
  get className() {
    return this.attributes.class ?? "";
  }
  get textContent() {
    return this.children
      .map((child) => (child instanceof Element ? child.textContent : String(child)))
      .join(" ");
  }
  append(...children) {
    this.children.push(...children);
  }
  replaceChildren(...children) {
    this.children = children;
  }
  setAttribute(name, value) {
    this.attributes[name] = String(value);
  }
  addEventListener() {}
  *walk() {
    yield this;
    for (const child of this.children) if (child instanceof Element) yield* child.walk();
  }
}
class HTMLTableCellElement extends Element {}

const create = (tag) =>
  ["td", "th"].includes(tag) ? new HTMLTableCellElement(tag) : new Element(tag);
const page = fs.readFileSync(process.argv[2], "utf-8");
const [, data] = /<script type="application\/json" id="data">(.*)<\/script>/.exec(page);
const [, script] = /<script>\n([^]*)<\/script>/.exec(page);
const main = create("main");
Map.groupBy ??= (items, choose) => {
  const groups = new Map();
  for (const item of items) groups.set(choose(item), [...(groups.get(choose(item)) ?? []), item]);
  return groups;
};
vm.runInThisContext("(function (document, window, location, HTMLTableCellElement) {" + script + "})")(
  {
    createElement: create,
    createElementNS: (_space, tag) => create(tag),
    getElementById: () => ({ textContent: data }),
    querySelector: () => main,
  },
  { addEventListener() {} },
  { hash: "" },
  HTMLTableCellElement,
);
const texts = (keep) => [...main.walk()].filter(keep).map((element) => element.textContent);
process.stdout.write(
  JSON.stringify({
    header: texts(({ tag }) => tag === "header")[0],
    summary: texts(({ className }) => className === "summary")[0],
    sections: texts(({ tag }) => tag === "section"),
  }),
);
