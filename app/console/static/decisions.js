// What did the system do about it, and why? The ledger's newest entries, each with its evidence.

import { byId, element, icon, keyed, setText, show } from "./dom.js";
import * as format from "./format.js";

const FEW = 10; // entries shown before the rest is asked for
const DEPTH = 4; // levels of evidence shown as lists; what lies deeper is shown as JSON

// kind -> what it is called, its icon, its tone
const KINDS = {
  deploy: ["Deployed", "up", "ok"],
  alarm_noted: ["Alarm noted", "bell", "drift"],
  fault: ["Upstream fault", "fault", "fault"],
  fault_over: ["Fault over", "check", "ok"],
  probe: ["Probe", "probe", "watch"],
  probed: ["Probe’s result", "probe", "watch"],
  retrain: ["Retraining", "loop", "watch"],
  retrained: ["Retrained", "loop", "ok"],
  retrain_failed: ["Retraining failed", "breach", "fault"],
  refused: ["Refused by the gate", "breach", "degraded"],
  shadow: ["Shadow", "layers", "watch"],
  stage: ["Next stage", "layers", "watch"],
  promote: ["Promoted", "up", "ok"],
  settled: ["Settled", "check", "ok"],
  rollback: ["Rolled back", "back", "fault"],
  ended: ["Ended by hand", "back", "degraded"],
  page: ["Person paged", "bell", "fault"],
};
const looks = (kind) => (Object.hasOwn(KINDS, kind) ? KINDS[kind] : [format.words(kind), "unknown", "unknown"]);

const wanted = new Set(); // kinds to show; none: all
let showAll = false;
let latest = [];

// Evidence names moments by these keys, as milliseconds since 1970.
const MOMENT = /^(at|onset|since|until|from|start|end|event|watermark|\w+_(at|until|from|since))$/;

function scalar(value, key) {
  if (value === null || value === undefined) return "none";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value !== "number") return String(value);
  return MOMENT.test(key) && value > 1e11 ? format.moment(value) : format.plain(value);
}

/** A piece of evidence as text, as a list of names and values, or, where it lies too deep, as JSON. */
function evidence(value, key, depth) {
  if (typeof value !== "object" || value === null) return scalar(value, key);
  if (depth >= DEPTH) return element("code", {}, JSON.stringify(value));
  if (Array.isArray(value)) {
    if (!value.length) return "none";
    if (value.every((part) => typeof part !== "object" || part === null)) return value.map((part) => scalar(part, key)).join(", ");
    return element("ul", {}, ...value.map((part) => element("li", {}, evidence(part, key, depth + 1))));
  }
  const pairs = Object.entries(value);
  if (!pairs.length) return "none";
  return element(
    "dl",
    { class: "pairs" },
    ...pairs.map(([name, part]) => element("div", {}, element("dt", {}, format.words(name)), element("dd", {}, evidence(part, name, depth + 1)))),
  );
}

function time(value) {
  const at = format.when(value);
  return at === null ? null : element("time", { datetime: new Date(at).toISOString() }, format.moment(at));
}

/** A link to the entry that this one answers; plain text when that one is not among those shown here. */
function answers(about) {
  if (about === null || about === undefined) return null;
  const other = latest.find((entry) => entry.id === about);
  if (!other) return element("span", { class: "quiet" }, "answers ", element("code", {}, String(about)));
  const link = element("a", { href: `#entry-${other.number}` }, `answers ${looks(other.kind)[0].toLowerCase()}, no. ${other.number}`);
  link.addEventListener("click", (event) => {
    event.preventDefault();
    history.replaceState(null, "", `#entry-${other.number}`);
    goTo(`entry-${other.number}`);
  });
  return link;
}

function createEntry(entry) {
  const [name, shape, tone] = looks(entry.kind);
  const facts = { number: entry.number, id: entry.id, step: entry.step, written: entry.written ? format.moment(entry.written) : undefined };
  const told = Object.fromEntries(Object.entries(facts).filter(([, value]) => value !== undefined && value !== null));
  const details = element("details", {}, element("summary", {}, "Evidence", element("span", { class: "visually-hidden" }, ` of no. ${entry.number}`)));
  details.addEventListener("toggle", () => {
    if (!details.open || details.childElementCount > 1) return;
    const proof = entry.evidence && Object.keys(entry.evidence).length ? evidence(entry.evidence, "", 0) : element("p", { class: "nothing" }, "None was needed.");
    details.append(element("div", { class: "proof" }, proof, element("div", { class: "record" }, evidence(told, "", 0))));
  });
  const version = entry.version === null || entry.version === undefined ? null : element("span", { class: "version" }, format.version(entry.version));
  return element(
    "li",
    { id: `entry-${entry.number}`, "data-state": tone, tabindex: "-1" },
    element("span", { class: "node" }, icon(shape)),
    element("div", { class: "entry-head" }, element("strong", {}, name), version, time(entry.at)),
    element("p", {}, String(entry.reason ?? "")),
    element("div", { class: "entry-foot" }, details, answers(entry.about)),
  );
}

/** Bring an entry into view and focus, whatever is filtered or folded away. */
function goTo(id) {
  if (!byId(id) && latest.some((entry) => `entry-${entry.number}` === id)) {
    wanted.clear();
    showAll = true;
    render();
  }
  const reduced = matchMedia("(prefers-reduced-motion: reduce)").matches;
  byId(id)?.scrollIntoView({ behavior: reduced ? "auto" : "smooth", block: "center" });
  byId(id)?.focus({ preventScroll: true });
}

function createKind([kind]) {
  const [name, shape] = looks(kind);
  const button = element("button", { type: "button", class: "kind", "aria-pressed": "false" }, icon(shape), element("span", {}, name), element("span", { class: "tally" }));
  button.addEventListener("click", () => {
    if (!wanted.delete(kind)) wanted.add(kind);
    render();
  });
  return button;
}

function render() {
  const tally = new Map();
  for (const { kind } of latest) tally.set(kind, (tally.get(kind) ?? 0) + 1);
  const order = Object.keys(KINDS);
  const rank = (kind) => (order.includes(kind) ? order.indexOf(kind) : order.length);
  const kinds = [...tally].sort(([one], [other]) => rank(one) - rank(other));
  keyed(byId("kinds"), kinds, ([kind]) => kind, createKind, (button, [kind, number]) => {
    button.setAttribute("aria-pressed", String(wanted.has(kind)));
    setText(button.querySelector(".tally"), format.count(number));
  });
  const matching = latest.filter((entry) => !wanted.size || wanted.has(entry.kind));
  const shown = showAll ? matching : matching.slice(0, FEW);
  keyed(byId("timeline"), shown, (entry) => entry.id ?? entry.number, createEntry);
  show("decisions-nothing", !latest.length);
  show("kinds", kinds.length > 1);
  show("timeline-more", matching.length > FEW);
  setText(byId("timeline-more"), showAll ? "Show fewer" : `Show all ${format.count(matching.length)}`);
}

/** Show the entries of `/decisions`, newest first. */
export function renderDecisions(decisions) {
  const first = !latest.length && decisions.length > 0;
  latest = [...decisions].sort((one, other) => (other.number ?? 0) - (one.number ?? 0));
  for (const kind of wanted) if (!latest.some((entry) => entry.kind === kind)) wanted.delete(kind);
  render();
  if (first && location.hash) goTo(location.hash.slice(1));
}

byId("timeline-more").addEventListener("click", () => {
  showAll = !showAll;
  render();
});
