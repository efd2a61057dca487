// How much is known of what came true, and which versions have there been?

import { byId, element, icon, setText, show } from "./dom.js";
import * as format from "./format.js";

const ROLES = { champion: ["Champion", "ok"], challenger: ["Challenger", "layers"], shadow: ["Shadow", "layers"], refused: ["Refused", "breach"] };
const METRICS = 3; // of each version
const FEW = 4; // versions shown before the rest is asked for

let showAll = false;
let latest = [];
const NAMES = { log_loss: "log-loss", pinball: "pinball loss", coverage: "share below the prediction", auc: "AUC", brier: "Brier score", calibration_error: "calibration error", rmse: "RMSE", mae: "MAE", r2: "R²", macro_f1: "macro F1" };

/** Show how many predictions have met their label, and how long labels take. */
export function renderLabels(labels) {
  const counts = [
    ["Predictions", labels?.predictions],
    ["Joined with a label", labels?.joined],
    ["Waiting for one", labels?.waiting],
    ["Labels of unknown rows", labels?.unmatched],
    ["Sent twice", labels?.duplicates],
    ["Too late for alarms", labels?.late],
  ].filter(([, number]) => number !== undefined && number !== null);
  show("labels-nothing", !counts.length);
  const coverage = element("span", { class: "meter", "aria-hidden": "true" }, element("span"));
  coverage.firstChild.style.width = `${Math.max(0, Math.min(1, labels?.coverage ?? 0)) * 100}%`;
  const delay = labels?.delay_seconds ?? {};
  byId("labels").replaceChildren(
    ...(counts.length
      ? [
          element("p", { class: "coverage" }, coverage, element("span", {}, `${format.percent(labels.coverage)} joined`)),
          element(
            "dl",
            { class: "pairs" },
            ...[...counts.map(([name, number]) => [name, format.count(number)]), ["Delay, median", format.duration(delay.p50)], ["Delay, 90 % within", format.duration(delay.p90)]].map(([name, value]) =>
              element("div", {}, element("dt", {}, name), element("dd", { class: "number" }, value)),
            ),
          ),
        ]
      : []),
  );
}

function version({ version: name, role, since, reason, metrics }) {
  const [words, shape] = Object.hasOwn(ROLES, role) ? ROLES[role] : [format.words(role), null];
  const figures = Object.entries(metrics ?? {}).filter(([, value]) => Number.isFinite(value)).slice(0, METRICS);
  return element(
    "li",
    { "data-role": String(role) },
    element(
      "div",
      { class: "entry-head" },
      element("strong", {}, format.version(name)),
      role ? element("span", { class: "badge" }, shape ? icon(shape) : null, words) : null,
      since ? element("span", { class: "quiet" }, `since ${format.date(since)}`) : null,
    ),
    reason ? element("p", {}, String(reason)) : null,
    figures.length
      ? element("p", { class: "quiet" }, figures.map(([key, value]) => `${NAMES[key] ?? format.words(key).toLowerCase()} ${format.metric(value)}`).join(" · "))
      : null,
  );
}

/** Show the versions, those in force first, then the newest. */
export function renderVersions(versions, model) {
  const known = versions.length ? versions : model.version === undefined ? [] : [{ version: model.version, role: "champion", metrics: model.metrics }];
  const rank = ({ role }) => (role === "champion" ? 0 : Object.hasOwn(ROLES, role) ? 1 : 2);
  const sorted = [...known].sort((a, b) => rank(a) - rank(b) || (format.when(b.since) ?? 0) - (format.when(a.since) ?? 0));
  latest = sorted;
  list();
}

function list() {
  show("versions-nothing", !latest.length);
  byId("versions").replaceChildren(...(showAll ? latest : latest.slice(0, FEW)).map(version));
  show("versions-more", latest.length > FEW);
  setText(byId("versions-more"), showAll ? "Show fewer versions" : `Show all ${format.count(latest.length)} versions`);
}

byId("versions-more").addEventListener("click", () => {
  showAll = !showAll;
  list();
});
