// How do loss and traffic run over the days? Two charts over the same days, and the same figures as a table.

import { byId, element, setText, show } from "./dom.js";
import * as format from "./format.js";

/* global uPlot */
const DAY = 86_400;
const MONTH = 30 * DAY; // as uPlot counts it when it puts ticks at the first of a month
const INCREMENTS = [1, 2, 7, 14, 30, 60, 90, 180, 365, 730].map((days) => days * DAY);
const WINDOW = 7; // days of the running mean
const FEWEST = 3; // days before a running mean is drawn: the first would be as jumpy as the days themselves
const COLOURS = 6; // --series-1 ... --series-6, used again after that
const CURSOR = uPlot.sync("days");
const charts = new Map(); // id of the element -> what is needed to draw it again

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const seriesColour = (index) => colour(`--series-${(index % COLOURS) + 1}`);
const monthName = new Intl.DateTimeFormat("en-GB", { month: "short", timeZone: "UTC" });
const dayName = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", timeZone: "UTC" });

/** Rows of {day, ...} with a readable day, as seconds, oldest first. */
function dated(rows) {
  return rows
    .map((row) => ({ ...row, time: format.when(row.day) }))
    .filter((row) => row.time !== null)
    .map((row) => ({ ...row, time: Math.floor(row.time / 1000 / DAY) * DAY }))
    .sort((a, b) => a.time - b.time);
}

/** The days of a chart: a single one with its neighbours, which uPlot would show as the first of a thousand. */
const around = (times) => (times.length === 1 ? [times[0] - DAY, times[0], times[0] + DAY] : times);

/** The mean loss of the last `WINDOW` days up to the last one, weighted by rows; null without any. */
export function recentLoss(rows) {
  const all = dated(rows);
  return all.length ? runningMean(all, all.at(-1).time) : null;
}

function runningMean(rows, time) {
  const near = rows.filter((row) => row.time <= time && row.time > time - WINDOW * DAY && Number.isFinite(row.loss));
  const weight = near.reduce((sum, row) => sum + (row.rows ?? 1), 0);
  return weight ? near.reduce((sum, row) => sum + row.loss * (row.rows ?? 1), 0) / weight : null;
}

/** The columns of the loss chart: days; then of every version its days and its running mean; then what is expected. */
function lossColumns(times, rows, versions, expected) {
  const columns = versions.flatMap((version) => {
    const own = rows.filter((row) => String(row.version) === version);
    const by = new Map(own.map((row) => [row.time, row.loss]));
    const settled = own[Math.min(FEWEST, own.length) - 1].time;
    const means = times.map((time) => (by.has(time) && time >= settled ? runningMean(own, time) : null));
    return [times.map((time) => by.get(time) ?? null), means];
  });
  return [times, ...columns, times.map(() => expected)];
}

function axes(numbers) {
  const common = { stroke: () => colour("--muted"), font: "12px system-ui, sans-serif" };
  const grid = { stroke: () => colour("--grid"), width: 1 };
  const names = (u, splits, axis, space, increment) =>
    splits.map((split, index) => {
      const at = new Date(split * 1000);
      if (increment < MONTH) return dayName.format(at);
      const year = index === 0 || at.getUTCMonth() === 0;
      return monthName.format(at) + (year ? ` ${at.getUTCFullYear()}` : "");
    });
  return [
    { ...common, grid: { show: false }, ticks: grid, incrs: INCREMENTS, space: 64, size: 30, values: names },
    { ...common, grid, ticks: { show: false }, size: 58, values: (u, splits, axis, space, increment) => splits.map((split) => numbers(split, increment)) },
  ];
}

function draw(id, signature, options, data) {
  const box = byId(id);
  const old = charts.get(id);
  if (old?.signature === signature && old.plot) {
    old.plot.setData(data);
    old.data = data;
    return;
  }
  old?.plot.destroy();
  old?.observer.disconnect();
  const size = () => ({ width: Math.max(box.clientWidth, 120), height: options.height });
  const plot = new uPlot(
    {
      ...options,
      ...size(),
      tzDate: (time) => uPlot.tzDate(new Date(time * 1000), "Etc/UTC"),
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, sync: { key: CURSOR.key }, points: { size: 7 } },
    },
    data,
    box,
  );
  const observer = new ResizeObserver(() => plot.setSize(size()));
  observer.observe(box);
  charts.set(id, { signature, options, data, plot, observer });
}

/** Draw all charts anew, in the colours of now. */
export function recolour() {
  for (const [id, { options, data }] of [...charts]) draw(id, null, options, data);
}

// What happened, across the chart: promotions and rollbacks as lines with a flag, alarms and faults as marks below.
let marks = [];

function drawMarks(u) {
  const { ctx, bbox } = u;
  const pixel = devicePixelRatio;
  const [first, last] = [u.scales.x.min, u.scales.x.max];
  let free = -Infinity;
  ctx.save();
  ctx.font = `600 ${11 * pixel}px system-ui, sans-serif`;
  ctx.textBaseline = "middle";
  ctx.textAlign = "left";
  for (const mark of marks) {
    if (mark.time < first || mark.time > last) continue;
    const x = Math.round(u.valToPos(mark.time, "x", true));
    ctx.strokeStyle = ctx.fillStyle = colour(mark.colour);
    ctx.lineWidth = pixel;
    if (mark.label === null) {
      const [y, half] = [bbox.top + bbox.height, 5 * pixel];
      ctx.beginPath();
      if (mark.kind === "fault") ctx.rect(x - half * 0.8, y - half * 2, half * 1.6, half * 1.6);
      else {
        ctx.moveTo(x, y - half * 2);
        ctx.lineTo(x + half, y - 1);
        ctx.lineTo(x - half, y - 1);
      }
      ctx.closePath();
      ctx.fill();
      continue;
    }
    ctx.setLineDash([2 * pixel, 3 * pixel]);
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    const width = ctx.measureText(mark.label).width + 8 * pixel;
    if (x < free) continue; // flags never lie on each other; the table and the timeline have them all
    free = x + width;
    const left = Math.min(x, bbox.left + bbox.width - width);
    ctx.fillRect(left, bbox.top, width, 16 * pixel);
    ctx.fillStyle = colour("--card");
    ctx.fillText(mark.label, left + 4 * pixel, bbox.top + 8.5 * pixel);
  }
  ctx.restore();
}

/** Promotions, rollbacks and deployments of the decisions and versions, alarms and faults, oldest first. */
function marksOf(status, decisions) {
  const found = new Map();
  const add = (time, kind, label, tone) => {
    if (time !== null) found.set(`${Math.floor(time / 864e5)} ${kind} ${label}`, { time: time / 1000, kind, label, colour: tone });
  };
  for (const version of status.versions) {
    if (version.role === "champion" || version.role === "former") {
      add(format.when(version.since), "version", format.version(version.version), "--mark");
    }
  }
  for (const { kind, at, version } of decisions) {
    const name = format.version(version);
    if (kind === "promote" || kind === "deploy" || kind === "ended") add(format.when(at), "version", name, "--mark");
    else if (kind === "rollback") add(format.when(at), "rollback", `↩ ${name}`, "--fault");
    else if (kind === "alarm_noted") add(format.when(at), "alarm", null, "--drift");
    else if (kind === "fault") add(format.when(at), "fault", null, "--fault");
  }
  for (const { kind, at } of status.findings) {
    add(format.when(at), kind === "fault" ? "fault" : "alarm", null, kind === "fault" ? "--fault" : "--drift");
  }
  return [...found.values()].sort((a, b) => a.time - b.time);
}

function legend(versions, expected) {
  const swatch = (kind, tone) => {
    const node = element("span", { class: `swatch ${kind}`, "aria-hidden": "true" });
    node.style.color = `var(${tone})`;
    return node;
  };
  const entry = (kind, tone, words) => element("li", {}, swatch(kind, tone), words);
  const has = (kind) => marks.some((mark) => mark.kind === kind);
  byId("loss-legend").replaceChildren(
    ...versions.map((name, index) => entry("line", `--series-${(index % COLOURS) + 1}`, format.version(name))),
    ...(expected === null ? [] : [entry("dashed", "--muted", "expected")]),
    ...(has("version") ? [entry("flag", "--mark", "new champion")] : []),
    ...(has("rollback") ? [entry("flag", "--fault", "rollback")] : []),
    ...(has("alarm") ? [entry("triangle", "--drift", "alarm")] : []),
    ...(has("fault") ? [entry("square", "--fault", "upstream fault")] : []),
    element("li", { class: "quiet" }, `Dots: days. Lines: mean of ${WINDOW} days.`),
  );
}

/** Write what the charts show as a table, newest day first; only while it is open, for it can be long. */
function table(loss, traffic) {
  if (!byId("days").open) return;
  const answered = new Map(traffic.map((row) => [row.time, row.rows]));
  const withoutLoss = traffic.filter((row) => !loss.some((other) => other.time === row.time));
  const rows = [...loss, ...withoutLoss.map(({ time }) => ({ time }))].sort((a, b) => b.time - a.time);
  const cell = (text, kind) => element("td", { class: kind }, text);
  byId("days-rows").replaceChildren(
    ...rows.map(({ time, version, rows: labelled, loss: value }) =>
      element(
        "tr",
        {},
        element("th", { scope: "row" }, format.date(time * 1000)),
        cell(format.count(answered.get(time)), "number"),
        cell(format.version(version)),
        cell(format.count(labelled), "number"),
        cell(format.metric(value), "number"),
      ),
    ),
  );
}

let tableOf = () => {};
byId("days").addEventListener("toggle", () => tableOf());

/** Draw loss and traffic of `/drift`, with the marks of its findings and of the decisions. */
export function renderCharts(status, decisions) {
  const loss = dated(status.loss.days).filter((row) => Number.isFinite(row.loss));
  const traffic = dated(status.traffic.days);
  const expected = Number.isFinite(status.loss.expected) ? status.loss.expected : null;
  const versions = [...new Set(loss.map((row) => String(row.version)))];
  const times = around([...new Set([...loss, ...traffic].map((row) => row.time))].sort((a, b) => a - b));
  marks = marksOf(status, decisions);
  show("loss-nothing", !loss.length);
  show("loss-figure", loss.length > 0);
  show("traffic-figure", traffic.length > 0);
  show("days", times.length > 0);
  tableOf = () => table(loss, traffic);
  tableOf();

  const recent = loss.length ? runningMean(loss, loss.at(-1).time) : null;
  const still = recent === null ? "" : `last ${WINDOW} days ${format.metric(recent)}, expected ${format.metric(expected)}`;
  const readout = (index) => {
    if (index === null || index === undefined) return setText(byId("loss-readout"), still);
    const time = times[index];
    const own = loss.filter((row) => row.time === time).map((row) => `${format.version(row.version)} ${format.metric(row.loss)}`);
    const rows = traffic.find((row) => row.time === time)?.rows;
    setText(byId("loss-readout"), [format.date(time * 1000), ...own, rows === undefined ? null : format.many(rows, "row")].filter(Boolean).join(" · "));
  };
  readout(null);
  readouts.current = readout;

  if (loss.length) {
    const lines = versions.flatMap((name, index) => [
      { label: `${name} by day`, stroke: () => seriesColour(index), width: 0, paths: () => null, points: { show: true, size: 3.5, width: 0, fill: () => seriesColour(index) } },
      { label: name, stroke: () => seriesColour(index), width: 2.25, spanGaps: true, points: { show: false } },
    ]);
    const range = (u, low, high) => {
      const pad = Math.max((high - low) * 0.12, high * 2e-3) || 1e-3;
      return [Math.max(0, low - pad), high + pad * 1.6];
    };
    const options = {
      height: 232,
      padding: [6, 24, 0, 0],
      scales: { x: { time: true }, y: { range } },
      axes: axes(format.tick),
      series: [{}, ...lines, { label: "expected", stroke: () => colour("--muted"), width: 1.5, dash: [6, 4], points: { show: false } }],
      hooks: { draw: [drawMarks], setCursor: [(u) => readouts.current(u.cursor.idx)] },
    };
    draw("loss-chart", versions.join("\n"), options, lossColumns(times, loss, versions, expected));
    const span = `from ${format.date(loss[0].time * 1000)} to ${format.date(loss.at(-1).time * 1000)}`;
    byId("loss-chart").setAttribute("aria-label", `Mean loss by day and version, ${span}; ${still}. A table of it follows.`);
    legend(versions, expected);
  }
  if (traffic.length) {
    const by = new Map(traffic.map((row) => [row.time, row.rows]));
    const options = {
      height: 104,
      padding: [6, 24, 0, 0],
      scales: { x: { time: true }, y: { range: (u, low, high) => [0, Math.max(high, 1) * 1.05] } },
      axes: axes(format.compact),
      series: [{}, { label: "rows", stroke: () => colour("--bars"), fill: () => colour("--bars"), width: 0, paths: uPlot.paths.bars({ size: [0.7, 24] }), points: { show: false } }],
      hooks: { setCursor: [(u) => readouts.current(u.cursor.idx)] },
    };
    draw("traffic-chart", "rows", options, [times, times.map((time) => by.get(time) ?? null)]);
    const total = traffic.reduce((sum, row) => sum + (row.rows ?? 0), 0);
    byId("traffic-chart").setAttribute("aria-label", `Rows answered by day: ${format.count(total)} on ${format.many(traffic.length, "day")}. A table of it follows.`);
  }
}

const readouts = { current: () => {} }; // what a moving cursor calls: always that of the newest data
