// Draws charts as SVG.

const SERIES = 7; // colours c0, c1, ...
const CHART = { width: 400, height: 260, left: 56, right: 22, top: 12, bottom: 46 };

// Returns about `count` ticks that cover low to high, at 1, 2 or 5 times a power of ten.
function niceTicks(low, high, count) {
  const power = 10 ** Math.floor(Math.log10((high - low) / count));
  const step = power * [1, 2, 5, 10].find((factor) => (high - low) / (power * factor) <= count);
  const first = Math.floor(low / step + 1e-9);
  const last = Math.ceil(high / step - 1e-9);
  return Array.from({ length: last - first + 1 }, (_, index) => (first + index) * step);
}

// Returns at most `most` of the values, evenly spaced and including the last.
function thinTicks(values, most) {
  const step = Math.ceil(values.length / most);
  return values.filter((_, index) => (values.length - 1 - index) % step === 0);
}

function drawAxes({ x, y, xTicks, yTicks, xLabel, yLabel, yFormat }) {
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
    svg(
      "text",
      { transform: `translate(13 ${(top + base) / 2}) rotate(-90)`, "text-anchor": "middle" },
      yLabel,
    ),
  ];
}

function chartFrame(label, ...children) {
  const viewBox = `0 0 ${CHART.width} ${CHART.height}`;
  return svg("svg", { class: "chart", viewBox, role: "img", "aria-label": label }, children);
}

// Returns a function that maps low..high to the chart's height.
function verticalScale(low, high) {
  const base = CHART.height - CHART.bottom;
  return (value) => base - ((value - low) / (high - low)) * (base - CHART.top);
}

// Returns how far a point of series `index` moves aside: dots at one x must not cover each other.
function sideStep(series, index, { x }) {
  const sharing = series.flatMap(({ points }, other) =>
    points.some((point) => point.x === x) ? [other] : [],
  );
  return 10 * (sharing.indexOf(index) - (sharing.length - 1) / 2);
}

// Draws scores (fractions) against x on a logarithmic axis.
// series: [{name, points: [{x, value, low, high, name}]}].
function scoreChart({ label, xLabel, series, band }) {
  const points = series.flatMap(({ points: seriesPoints }) => seriesPoints);
  const lows = points.map((point) => point.low ?? point.value);
  const highs = points.map((point) => point.high ?? point.value);
  const top = Math.min(1, Math.max(...highs, Math.min(...lows) + 0.05));
  const yTicks = niceTicks(0, top, 5);
  const y = verticalScale(yTicks[0], yTicks.at(-1));
  const xs = [...new Set(points.map((point) => point.x))].sort((a, b) => a - b);
  const first = Math.log(xs[0]);
  const span = Math.log(xs.at(-1)) - first;
  const room = CHART.width - CHART.left - CHART.right - 36;
  const x = (value) => CHART.left + 18 + room * (span ? (Math.log(value) - first) / span : 0.5);
  const labelled = []; // x values far enough apart for their labels
  for (const value of xs.toReversed())
    if (!labelled.length || x(labelled.at(-1)) - x(value) > 46) labelled.push(value);
  const path = (pairs) =>
    pairs.map(([at, value]) => `${at.toFixed(1)},${y(value).toFixed(1)}`).join(" ");
  const mark = (point, at) =>
    svg(
      "g",
      {},
      svg("title", {}, `${point.name}: ${formatScore(point)}`),
      !band &&
        point.low != null &&
        svg("line", { class: "whisker", x1: at, x2: at, y1: y(point.low), y2: y(point.high) }),
      svg("circle", { class: "dot", cx: at, cy: y(point.value), r: 4 }),
    );
  return chartFrame(
    label,
    drawAxes({
      x,
      y,
      xTicks: labelled.map((value) => [value, formatInteger(value)]),
      yTicks,
      xLabel,
      yLabel: "score, %",
      yFormat: (tick) => +(100 * tick).toFixed(2),
    }),
    series.map(({ points: seriesPoints }, index) => {
      const at = (point) => x(point.x) + (band ? 0 : sideStep(series, index, point));
      const bounded = seriesPoints.filter((point) => point.low != null);
      const upper = bounded.map((point) => [at(point), point.high]);
      const lower = bounded.map((point) => [at(point), point.low]);
      return svg(
        "g",
        { class: `c${index % SERIES}` },
        band && svg("polygon", { class: "band", points: path([...upper, ...lower.toReversed()]) }),
        svg("polyline", {
          class: "line",
          points: path(seriesPoints.map((point) => [at(point), point.value])),
        }),
        seriesPoints.map((point) => mark(point, at(point))),
      );
    }),
  );
}

// Draws counts by length; bars: [{low, high, count, accepted}], drawn equally wide.
function histogram({ label, xLabel, bars }) {
  const most = Math.max(1, ...bars.map((bar) => bar.count));
  const yTicks = niceTicks(0, most, Math.min(most, 5));
  const y = verticalScale(0, yTicks.at(-1));
  const step = (CHART.width - CHART.left - CHART.right) / bars.length;
  const x = (index) => CHART.left + index * step;
  const edges = [...bars.map((bar) => bar.low), bars.at(-1).high].map((edge, index) => [
    index,
    formatInteger(edge),
  ]);
  const width = Math.max(1, step - 2);
  const part = (index, from, to, colour) =>
    svg("rect", {
      class: `fill ${colour}`,
      x: x(index) + 1,
      width,
      y: y(to),
      height: y(from) - y(to),
    });
  return chartFrame(
    label,
    drawAxes({
      x,
      y,
      xTicks: thinTicks(edges, 7),
      yTicks,
      xLabel,
      yLabel: "samples",
      yFormat: formatInteger,
    }),
    bars.map((bar, index) =>
      svg(
        "g",
        {},
        svg(
          "title",
          {},
          `${formatInteger(bar.low)} to ${formatInteger(bar.high)} tokens: `,
          `${formatInteger(bar.count)} samples, ${formatInteger(bar.accepted)} accepted`,
        ),
        part(index, 0, bar.accepted, "good"),
        part(index, bar.accepted, bar.count, "c1"),
      ),
    ),
  );
}

// Draws shares of a whole; parts: [{name, count, colour}].
function shareBar(label, parts) {
  const whole = parts.reduce((sum, part) => sum + part.count, 0);
  let from = 0;
  const rects = parts.map(({ name, count, colour }) => {
    const width = (100 * count) / whole;
    from += width;
    return svg(
      "rect",
      { class: `fill ${colour}`, x: from - width, width, y: 0, height: 1 },
      svg("title", {}, `${name}: ${formatInteger(count)} (${formatPercent(count / whole)})`),
    );
  });
  const stretched = { viewBox: "0 0 100 1", preserveAspectRatio: "none" };
  return svg("svg", { class: "bar", role: "img", "aria-label": label, ...stretched }, rects);
}

// Draws one score with its interval on a scale from 0 to 100 %.
function intervalStrip({ value, low, high }, dot) {
  const x = (share) => 4 + 120 * share;
  return svg(
    "svg",
    { class: "strip c0", viewBox: "0 0 128 18", role: "img", "aria-label": formatPercent(value) },
    svg("title", {}, `${formatScore({ value, low, high })} on a scale from 0 to 100 %`),
    svg("line", { class: "grid", x1: x(0), x2: x(1), y1: 9, y2: 9 }),
    [0, 1].map((end) => svg("line", { class: "grid", x1: x(end), x2: x(end), y1: 5, y2: 13 })),
    low != null &&
      svg("line", { class: "whisker", "stroke-width": 3, x1: x(low), x2: x(high), y1: 9, y2: 9 }),
    svg("circle", { class: dot, cx: x(value), cy: 9, r: 3.5 }),
  );
}
