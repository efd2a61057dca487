// What moved? Findings in sentences, then every watched feature, worst first, with its expected and seen values.

import { byId, element, icon, keyed, setText, show } from "./dom.js";
import * as format from "./format.js";

const SEVERITY = { fault: 0, drift: 1, ok: 2 };
const WORDS = { fault: "Fault", drift: "Drift", ok: "Quiet" };
const ICONS = { fault: "fault", drift: "drift", ok: "ok" };
const QUIET = 6; // quiet features shown before the rest is asked for
const FINDINGS = 4;
const BINS = 12;

let showAll = false;
let showFindings = false;
let latest = { features: [], findings: [] };
let made = 0; // features ever put on the page: numbers their ids
const bodies = new Map(); // the two rows of a feature -> the feature they show now

const stateOf = (feature) => (Object.hasOwn(SEVERITY, feature.state) ? feature.state : "ok");
/** How far the evidence is on its way to the alarm, 0 ... 1 and beyond; null when not told. */
function progress({ evidence, threshold }) {
  return Number.isFinite(evidence) && threshold > 0 ? Math.max(0, evidence / threshold) : null;
}

function worstFirst(one, other) {
  const by = SEVERITY[stateOf(one)] - SEVERITY[stateOf(other)] || (progress(other) ?? -1) - (progress(one) ?? -1);
  return by || String(one.name).localeCompare(String(other.name));
}

/** A feature's bins as shares: counts are divided by their sum. The ones that moved most, in the order given. */
function shares(bins) {
  const sum = (key) => bins.reduce((total, bin) => total + (Number.isFinite(bin[key]) ? bin[key] : 0), 0);
  const [expected, seen] = [sum("expected"), sum("seen")].map((total) => (total > 1.5 ? total : 1));
  const all = bins.map((bin) => ({ bin: bin.bin, expected: (bin.expected ?? 0) / expected, seen: (bin.seen ?? 0) / seen }));
  const change = (bin) => Math.abs(bin.seen - bin.expected);
  const least = all.map(change).sort((a, b) => b - a)[BINS - 1] ?? 0;
  return all.filter((bin) => change(bin) >= least).slice(0, BINS);
}

function bar(share, largest, kind) {
  const node = element("span", { class: `bar ${kind}`, "aria-hidden": "true" });
  node.style.width = `${Math.max(0, Math.min(1, share / largest)) * 100}%`;
  return node;
}

function binTable(feature) {
  const { bins } = feature;
  if (!bins.length) return element("p", { class: "nothing" }, "Its values have not been reported.");
  const rows = shares(bins);
  const largest = Math.max(...rows.flatMap((row) => [row.expected, row.seen]), 1e-9);
  const label = rows.length < bins.length ? `The ${rows.length} of ${bins.length} bins that moved most` : "Share of the rows, by value";
  return element(
    "table",
    { class: "bins" },
    element("caption", {}, label, element("span", { class: "key" }, bar(1, 1, "expected"), "expected ", bar(1, 1, "seen"), "seen")),
    element("colgroup", {}, ...["value", "bars", "share", "share"].map((kind) => element("col", { class: kind }))),
    element(
      "thead",
      { class: "visually-hidden" },
      element("tr", {}, ...["Value", "Bars", "Expected", "Seen"].map((name) => element("th", { scope: "col" }, name))),
    ),
    element(
      "tbody",
      {},
      ...rows.map((row) =>
        element(
          "tr",
          {},
          element("th", { scope: "row" }, row.bin === null || row.bin === undefined ? "null" : String(row.bin)),
          element("td", { class: "bars" }, bar(row.expected, largest, "expected"), bar(row.seen, largest, "seen")),
          element("td", { class: "number quiet" }, format.share(row.expected)),
          element("td", { class: "number" }, format.share(row.seen)),
        ),
      ),
    ),
  );
}

function detail(feature) {
  const facts = [
    ["Kind", feature.kind],
    ["Direction", feature.direction],
    ["Detector", feature.detector],
    ["Began about", feature.onset ? format.moment(feature.onset) : null],
    ["Alarm since", feature.since ? format.moment(feature.since) : null],
    ["Evidence", Number.isFinite(feature.evidence) ? `${format.plain(feature.evidence)} of ${format.plain(feature.threshold)}` : null],
  ].filter(([, value]) => value !== null && value !== undefined && value !== "");
  const list = facts.map(([term, value]) => element("div", {}, element("dt", {}, term), element("dd", {}, String(value))));
  return element("div", { class: "detail" }, element("dl", { class: "pairs" }, ...list), binTable(feature));
}

/** A name that may be broken after its underscores. */
function breakable(name) {
  return String(name).split(/(?<=_)/).flatMap((part, index) => (index ? [element("wbr"), part] : [part]));
}

function createFeature(feature) {
  const id = `feature-${(made += 1)}`;
  const button = element("button", { type: "button", class: "unfold", "aria-expanded": "false", "aria-controls": id }, icon("open"), element("span", {}, ...breakable(feature.name)));
  const below = element("tr", { class: "below", id, hidden: true }, element("td", { colspan: "6" }));
  const row = element("tr", {}, element("th", { scope: "row" }, button), ...["state", "wide", "number", "evidence", "wide"].map((kind) => element("td", { class: kind })));
  const body = element("tbody", {}, row, below);
  button.addEventListener("click", () => {
    const open = button.getAttribute("aria-expanded") !== "true";
    button.setAttribute("aria-expanded", String(open));
    below.hidden = !open;
    fillDetail(body);
  });
  bodies.set(body, null);
  return body;
}

function fillDetail(body) {
  const below = body.querySelector(".below");
  if (!below.hidden) below.firstChild.replaceChildren(detail(bodies.get(body)));
}

function updateFeature(body, feature) {
  const was = bodies.get(body);
  if (was && JSON.stringify(was) === JSON.stringify(feature)) return;
  bodies.set(body, feature);
  const state = stateOf(feature);
  const [stateCell, direction, size, evidence, onset] = body.querySelectorAll("tr:first-child > td");
  body.dataset.state = state;
  stateCell.replaceChildren(element("span", { class: "badge" }, icon(ICONS[state]), WORDS[state]));
  setText(direction, String(feature.direction ?? "–"));
  setText(size, format.shift(feature.shift));
  const reached = progress(feature);
  const meter = element("span", { class: "meter", "aria-hidden": "true" }, element("span"));
  meter.firstChild.style.width = `${Math.min(1, reached ?? 0) * 100}%`;
  const said = reached === null ? "–" : reached >= 1 ? "alarm" : format.percent(Math.floor(reached * 100) / 100);
  evidence.replaceChildren(meter, element("span", { class: "reached" }, said));
  setText(onset, state === "ok" ? "–" : format.date(feature.onset));
  fillDetail(body);
}

/** How far something moved: features in standard deviations, a loss against what was expected; a fault in its words. */
function moved({ kind, shift }) {
  if (!Number.isFinite(shift) || kind === "fault") return null;
  return kind === "loss" ? format.change(shift) : format.shift(shift);
}

function finding(found) {
  const state = found.kind === "fault" ? "fault" : "drift";
  const words = found.words ?? `${format.words(found.what)} ${found.direction ?? ""}`;
  const facts = [found.version === undefined ? null : format.version(found.version), found.detector, moved(found)];
  const time = format.when(found.at);
  return element(
    "li",
    { "data-state": state },
    icon(found.kind === "fault" ? "fault" : found.kind === "loss" ? "degraded" : "drift"),
    element(
      "div",
      {},
      element("p", {}, element("span", { class: "visually-hidden" }, `${format.words(found.kind)}: `), String(words)),
      element("p", { class: "quiet" }, time === null ? "" : element("time", { datetime: new Date(time).toISOString() }, format.moment(time)), facts.filter(Boolean).map((fact) => ` · ${fact}`).join("")),
    ),
  );
}

function renderFindings(findings) {
  const newest = [...findings].sort((a, b) => (format.when(b.at) ?? 0) - (format.when(a.at) ?? 0));
  keyed(byId("findings"), showFindings ? newest : newest.slice(0, FINDINGS), (found) => JSON.stringify(found), finding);
  show("findings-more", newest.length > FINDINGS);
  setText(byId("findings-more"), showFindings ? "Show fewer findings" : `Show all ${format.count(newest.length)} findings`);
}

function renderTable(features) {
  const wanted = byId("find").value.trim().toLowerCase();
  const sorted = [...features].sort(worstFirst);
  const matching = sorted.filter((feature) => String(feature.name).toLowerCase().includes(wanted));
  const few = matching.filter((feature) => stateOf(feature) !== "ok").length + QUIET;
  const shown = showAll || wanted ? matching : matching.slice(0, few);
  keyed(byId("feature-rows"), shown, (feature) => feature.name, createFeature, updateFeature);
  for (const body of bodies.keys()) if (!body.isConnected) bodies.delete(body);
  show("find-nothing", !matching.length);
  show("features-more", !wanted && matching.length > few);
  setText(byId("features-more"), showAll ? "Show fewer features" : `Show all ${format.count(matching.length)} features`);
}

/** Show findings and features of `/drift`. */
export function renderMoved(status) {
  latest = status;
  const { features, findings } = status;
  const loud = features.filter((feature) => stateOf(feature) !== "ok").length;
  show("features", features.length > 0);
  show("moved-nothing", !features.length || (!loud && !findings.length));
  setText(byId("moved-nothing"), features.length ? "Nothing: every feature is as it was in training, season by season." : "Nothing is watched yet.");
  setText(byId("moved-aside"), features.length ? `${format.count(loud)} of ${format.count(features.length)} features` : "");
  renderFindings(findings);
  renderTable(features);
}

byId("find").addEventListener("input", () => renderMoved(latest));
byId("features-more").addEventListener("click", () => {
  showAll = !showAll;
  renderMoved(latest);
});
byId("findings-more").addEventListener("click", () => {
  showFindings = !showFindings;
  renderMoved(latest);
});
