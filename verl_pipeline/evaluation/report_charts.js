// Elements and charts. Text from the data only ever becomes text nodes or attributes that hold text.

const SERIES = 7; // colours c0, c1, ...
const CHART = { width: 400, height: 260, left: 56, right: 22, top: 12, bottom: 46 };

// Attributes and children that are null or false are left out.
function fill(element, attributes, children) {
  const there = (value) => value != null && value !== false;
  for (const [name, value] of Object.entries(attributes)) if (there(value)) element.setAttribute(name, value);
  element.append(...children.flat(Infinity).filter(there));
  return element;
}

function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

const number = (text) => el("td", { class: "number" }, text);
const swatch = (colour) => el("span", { class: `swatch ${colour}` });
const bullets = (texts, kind) =>
  texts?.length > 0 && el("ul", { class: kind }, texts.map((text) => el("li", {}, text)));
const legend = (entries) =>
  el("div", { class: "legend" }, entries.map(([name, colour]) => el("span", {}, swatch(colour), name)));

const integer = (value) => (value == null ? "–" : Math.round(value).toLocaleString("en-US"));
const percent = (value) => (value == null ? "–" : `${(100 * value).toFixed(1)} %`);
const range = ({ low, high }) => (low == null ? "" : `${(100 * low).toFixed(1)} – ${(100 * high).toFixed(1)}`);
const withRange = (score) => (score ? percent(score.value) + (range(score) && ` (${range(score)})`) : "–");

// 1, 2 or 5 times a power of ten, about `count` of them, covering low to high.
function niceTicks(low, high, count) {
  const power = 10 ** Math.floor(Math.log10((high - low) / count));
  const step = power * [1, 2, 5, 10].find((factor) => (high - low) / (power * factor) <= count);
  const first = Math.floor(low / step + 1e-9), last = Math.ceil(high / step - 1e-9);
  return Array.from({ length: last - first + 1 }, (_, index) => (first + index) * step);
}

// As many of `values` as there is room for, from the last backwards.
function thinned(values, most) {
  const step = Math.ceil(values.length / most);
  return values.filter((_, index) => (values.length - 1 - index) % step === 0);
}

function axes({ x, y, xTicks, yTicks, xLabel, yLabel, yFormat }) {
  const { width, height, left, right, top, bottom } = CHART;
  const base = height - bottom;
  return [
    yTicks.map((tick) => [
      svg("line", { class: "grid", x1: left, x2: width - right, y1: y(tick), y2: y(tick) }),
      svg("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, yFormat(tick)),
    ]),
    xTicks.map(([at, text]) => [
      svg("line", { class: "axis", x1: x(at), x2: x(at), y1: base, y2: base + 4 }),
      svg("text", { x: x(at), y: base + 17, "text-anchor": "middle" }, text),
    ]),
    svg("line", { class: "axis", x1: left, x2: width - right, y1: base, y2: base }),
    svg("text", { x: (left + width - right) / 2, y: height - 8, "text-anchor": "middle" }, xLabel),
    svg("text", { transform: `translate(13 ${(top + base) / 2}) rotate(-90)`, "text-anchor": "middle" }, yLabel),
  ];
}

function frame(label, ...children) {
  const viewBox = `0 0 ${CHART.width} ${CHART.height}`;
  return svg("svg", { class: "chart", viewBox, role: "img", "aria-label": label }, children);
}

// Maps low..high to the chart's height.
function vertical(low, high) {
  const base = CHART.height - CHART.bottom;
  return (value) => base - ((value - low) / (high - low)) * (base - CHART.top);
}

// Scores (fractions) against x on a logarithmic axis. series: [{name, points: [{x, value, low, high, name}]}].
function scoreChart({ label, xLabel, series, band }) {
  const points = series.flatMap((one) => one.points);
  const lows = points.map((point) => point.low ?? point.value);
  const highs = points.map((point) => point.high ?? point.value);
  const top = Math.min(1, Math.max(...highs, Math.min(...lows) + 0.05));
  const yTicks = niceTicks(0, top, 5);
  const y = vertical(yTicks[0], yTicks.at(-1));
  const xs = [...new Set(points.map((point) => point.x))].sort((a, b) => a - b);
  const first = Math.log(xs[0]), span = Math.log(xs.at(-1)) - first;
  const room = CHART.width - CHART.left - CHART.right - 36;
  const x = (value) => CHART.left + 18 + room * (span ? (Math.log(value) - first) / span : 0.5);
  const apart = []; // ticks far enough from each other for their labels
  for (const value of xs.toReversed()) if (!apart.length || x(apart.at(-1)) - x(value) > 46) apart.push(value);
  const path = (pairs) => pairs.map(([at, value]) => `${at.toFixed(1)},${y(value).toFixed(1)}`).join(" ");
  const mark = (point, at) =>
    svg("g", {},
      svg("title", {}, `${point.name}: ${withRange(point)}`),
      !band && point.low != null &&
        svg("line", { class: "whisker", x1: at, x2: at, y1: y(point.low), y2: y(point.high) }),
      svg("circle", { class: "dot", cx: at, cy: y(point.value), r: 4 }));
  return frame(label,
    axes({ x, y, xTicks: apart.map((value) => [value, integer(value)]), yTicks, xLabel, yLabel: "score, %",
      yFormat: (tick) => +(100 * tick).toFixed(2) }),
    series.map(({ points: of }, index) => {
      const aside = band ? 0 : 5 * (index - (series.length - 1) / 2); // whiskers at one x stand side by side
      const at = (point) => x(point.x) + aside;
      const bounded = of.filter((point) => point.low != null);
      const upper = bounded.map((point) => [at(point), point.high]);
      const lower = bounded.map((point) => [at(point), point.low]);
      return svg("g", { class: `c${index % SERIES}` },
        band && svg("polygon", { class: "band", points: path([...upper, ...lower.toReversed()]) }),
        svg("polyline", { class: "line", points: path(of.map((point) => [at(point), point.value])) }),
        of.map((point) => mark(point, at(point))));
    }));
}

// Counts by length; bars: [{low, high, count, accepted}], drawn equally wide.
function histogram({ label, xLabel, bars }) {
  const most = Math.max(1, ...bars.map((bar) => bar.count));
  const yTicks = niceTicks(0, most, Math.min(most, 5));
  const y = vertical(0, yTicks.at(-1));
  const step = (CHART.width - CHART.left - CHART.right) / bars.length;
  const x = (index) => CHART.left + index * step;
  const edges = [...bars.map((bar) => bar.low), bars.at(-1).high].map((edge, index) => [index, integer(edge)]);
  const width = Math.max(1, step - 2);
  const part = (index, from, to, colour) =>
    svg("rect", { class: `fill ${colour}`, x: x(index) + 1, width, y: y(to), height: y(from) - y(to) });
  return frame(label,
    axes({ x, y, xTicks: thinned(edges, 7), yTicks, xLabel, yLabel: "samples", yFormat: integer }),
    bars.map((bar, index) =>
      svg("g", {},
        svg("title", {}, `${integer(bar.low)} to ${integer(bar.high)} tokens: `,
          `${integer(bar.count)} samples, ${integer(bar.accepted)} accepted`),
        part(index, 0, bar.accepted, "good"),
        part(index, bar.accepted, bar.count, "c1"))));
}

// Shares of a whole; parts: [{name, count, colour}].
function shareBar(label, parts) {
  const whole = parts.reduce((sum, part) => sum + part.count, 0);
  let from = 0;
  const rects = parts.map(({ name, count, colour }) => {
    const width = (100 * count) / whole;
    from += width;
    return svg("rect", { class: `fill ${colour}`, x: from - width, width, y: 0, height: 1 },
      svg("title", {}, `${name}: ${integer(count)} (${percent(count / whole)})`));
  });
  const stretched = { viewBox: "0 0 100 1", preserveAspectRatio: "none" };
  return svg("svg", { class: "bar", role: "img", "aria-label": label, ...stretched }, rects);
}

// One score with its interval on a scale from 0 to 100 %.
function strip({ value, low, high }, dot) {
  const x = (share) => 4 + 120 * share;
  return svg("svg", { class: "strip c0", viewBox: "0 0 128 18", role: "img", "aria-label": percent(value) },
    svg("title", {}, `${withRange({ value, low, high })} on a scale from 0 to 100 %`),
    svg("line", { class: "grid", x1: x(0), x2: x(1), y1: 9, y2: 9 }),
    [0, 1].map((end) => svg("line", { class: "grid", x1: x(end), x2: x(end), y1: 5, y2: 13 })),
    low != null && svg("line", { class: "whisker", "stroke-width": 3, x1: x(low), x2: x(high), y1: 9, y2: 9 }),
    svg("circle", { class: dot, cx: x(value), cy: 9, r: 3.5 }));
}
