// Elements and texts. Text from the data becomes text nodes or text attributes only, never markup.

// Adds attributes and children to an element; null and false are skipped.
function fillElement(element, attributes, children) {
  const isPresent = (value) => value != null && value !== false;
  for (const [name, value] of Object.entries(attributes))
    if (isPresent(value)) element.setAttribute(name, value);
  element.append(...children.flat(Infinity).filter(isPresent));
  return element;
}

function el(tag, attributes = {}, ...children) {
  return fillElement(document.createElement(tag), attributes, children);
}

function svg(tag, attributes = {}, ...children) {
  return fillElement(
    document.createElementNS("http://www.w3.org/2000/svg", tag),
    attributes,
    children,
  );
}

const numberCell = (text) => el("td", { class: "number" }, text);
const swatch = (colour) => el("span", { class: `swatch ${colour}` });
const bulletList = (texts, kind) =>
  texts?.length > 0 &&
  el(
    "ul",
    { class: kind },
    texts.map((text) => el("li", {}, text)),
  );
const legend = (entries) =>
  el(
    "div",
    { class: "legend" },
    entries.map(([name, colour]) => el("span", {}, swatch(colour), name)),
  );

// Rounds half away from zero, in decimal: the rule of number_formats.py. A text is taken exactly.
const formatDecimal = (value, digits, options = {}) =>
  new Intl.NumberFormat("en-US", {
    useGrouping: false,
    ...options,
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
    signDisplay: "negative", // no minus before zero
  }).format(String(value));
const formatInteger = (value) => (value == null ? "–" : formatDecimal(value, 0, { useGrouping: true }));
const percentDigits = (value) => formatDecimal(value, 1, { style: "percent" }).replace("%", "");
const formatPercent = (value) => (value == null ? "–" : `${percentDigits(value)} %`);
const formatInterval = ({ low, high }) =>
  low == null ? "" : `${percentDigits(low)} – ${percentDigits(high)}`;
const formatScore = (score) =>
  score
    ? formatPercent(score.value) + (formatInterval(score) && ` (${formatInterval(score)})`)
    : "–";

function table(headers, rows) {
  const cells = (row) =>
    row.map((cell) => (cell instanceof HTMLTableCellElement ? cell : el("td", {}, cell)));
  const head = headers.map((name, index) =>
    el("th", { class: rows.length > 0 && cells(rows[0])[index].className }, name),
  );
  return el(
    "div",
    { class: "wide" },
    el(
      "table",
      {},
      el("thead", {}, el("tr", {}, head)),
      el(
        "tbody",
        {},
        rows.map((row) => el("tr", {}, cells(row))),
      ),
    ),
  );
}

function figure(title, caption, ...content) {
  return el("figure", {}, el("h3", {}, title), content, caption && el("figcaption", {}, caption));
}

const foldedSection = (title, ...content) => el("details", {}, el("summary", {}, title), content);
