// Builds the figures of a task: scores, response lengths, verdicts and breakdowns.

function scoreFigure(title, xLabel, series, band, caption) {
  const drawn = series
    .map(({ name, points }) => ({
      name,
      points: points.filter((point) => point.x > 0 && point.value != null),
    }))
    .filter(({ points }) => points.length);
  const distinctXs = new Set(drawn.flatMap(({ points }) => points.map(({ x }) => x)));
  if (distinctXs.size < 2) return null; // a single point adds nothing to pass@1
  return figure(
    title,
    caption,
    drawn.length > 1 && legend(drawn.map(({ name }, index) => [name, `c${index % SERIES}`])),
    scoreChart({ label: title, xLabel, series: drawn, band }),
  );
}

function sampleCountFigure(task) {
  const meanings = {
    "pass@k": "at least one of k samples is correct",
    "cons@k": "the majority answer of k samples is correct",
  };
  const names = Object.keys(meanings).filter((name) => task[name]?.length);
  const series = names.map((name) => ({
    name,
    points: task[name].map((point) => ({ ...point, x: point.k, name: name.replace("k", point.k) })),
  }));
  const ks = [...new Set(series.flatMap(({ points }) => points.map((point) => point.k)))].sort(
    (a, b) => a - b,
  );
  const drawn = scoreFigure(
    "Score by number of samples",
    "k, samples per problem (logarithmic)",
    series,
    true,
    `${names.map((name) => `${name}: ${meanings[name]}`).join("; ")}. Bands: 95 %.`,
  );
  const score = (points, k) => numberCell(formatScore(points.find((point) => point.k === k)));
  const rows = ks.map((k) => [numberCell(k), ...series.map(({ points }) => score(points, k))]);
  drawn?.append(foldedSection("values", table(["k", ...names], rows)));
  return drawn;
}

function budgetFigure({ budget }) {
  const named = (point) => ({
    ...point,
    x: point.tokens,
    name: `at most ${formatInteger(point.tokens)} tokens`,
  });
  const points = (budget ?? []).map(named);
  const drawn = scoreFigure(
    "Score by token budget",
    "maximum tokens of a response (logarithmic)",
    [{ name: "pass@1", points }],
    true,
    "pass@1 if longer responses count as wrong. Band: 95 %.",
  );
  const rows = points.map((point) => [
    numberCell(formatInteger(point.tokens)),
    numberCell(formatScore(point)),
  ]);
  drawn?.append(foldedSection("values", table(["tokens", "pass@1"], rows)));
  return drawn;
}

function methodFigure({ methods }) {
  // One line per family: "vote of 4" and "vote of 8", or cons@4 and cons@8, belong together.
  const families = Map.groupBy(methods ?? [], ({ name }) => name.replace(/(@| of )\d+$/, ""));
  const series = [...families].map(([name, members]) => ({
    name,
    points: members
      .map((method) => ({ ...method, x: method.tokens_per_problem }))
      .sort((a, b) => a.x - b.x),
  }));
  const drawn = scoreFigure(
    "Score by cost",
    "generated tokens per problem (logarithmic)",
    series,
    false,
    "Test-time methods. Vertical lines: 95 %.",
  );
  drawn?.append(
    table(
      ["method", "score", "tokens per problem"],
      methods.map((method) => [
        method.name,
        numberCell(formatScore(method)),
        numberCell(formatInteger(method.tokens_per_problem)),
      ]),
    ),
  );
  return drawn;
}

function lengthFigure({ lengths }) {
  if (!lengths?.histogram?.length) return null;
  const { mean, median, p95, max } = lengths;
  return figure(
    "Lengths of responses",
    `mean ${formatInteger(mean)}, median ${formatInteger(median)}, ` +
      `95 % up to ${formatInteger(p95)}, longest ${formatInteger(max)}`,
    legend([
      ["accepted", "good"],
      ["not accepted", "c1"],
    ]),
    histogram({
      label: "Lengths of responses",
      xLabel: "tokens in the response",
      bars: lengths.histogram,
    }),
  );
}

function verdictFigure({ verdicts }) {
  const parts = Object.entries(verdicts ?? {})
    .filter(([, count]) => count)
    .sort(
      ([one, few], [other, many]) => (other === "accepted") - (one === "accepted") || many - few,
    )
    .map(([verdict, count]) => ({
      name: verdictText(verdict),
      count,
      colour: chooseColour(verdict),
    }));
  const whole = parts.reduce((sum, { count }) => sum + count, 0);
  if (!whole) return null;
  const row = ({ name, count, colour }) => [
    el("td", {}, swatch(colour), name),
    numberCell(formatInteger(count)),
    numberCell(formatPercent(count / whole)),
  ];
  return figure(
    "Verdicts",
    null,
    shareBar("Shares of verdicts", parts),
    table(["verdict", "samples", "share"], parts.map(row)),
  );
}

function tagFigure(tag, rows) {
  const cells = (row) => [
    row.name,
    numberCell(formatInteger(row.problems)),
    numberCell(formatScore(row)),
    intervalStrip(row, "dot"),
  ];
  return figure(
    `By ${tag}`,
    null,
    table([tag, "problems", "pass@1", "0–100\u00a0%"], rows.map(cells)),
  );
}
