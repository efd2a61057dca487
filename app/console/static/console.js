// The page itself: asks the service, hands what is new to the parts that show it, and says when it hears nothing.

import { byId, icon, setText, show } from "./dom.js";
import * as format from "./format.js";
import { poll } from "./poll.js";
import { list, silentSince, whole } from "./answers.js";
import { recolour, renderCharts } from "./charts.js";
import { renderDecisions } from "./decisions.js";
import { renderFacts, renderHealth } from "./health.js";
import { renderLabels, renderVersions } from "./versions.js";
import { renderLinks } from "./links.js";
import { renderMoved } from "./features.js";
import { renderRollout } from "./rollout.js";

const DRIFT = "drift";
const DECISIONS = "decisions?limit=100";
const MODEL = "model";
const READY = "readyz";

const good = ({ status, document }) => status === 200 && typeof document === "object" && document !== null;

let heardAt = null; // when the service last answered, by this machine's clock
let askAt = null; // when it is asked again, while it does not
let shown = ""; // what the page shows, as JSON
const last = { [DRIFT]: {}, [DECISIONS]: {}, [MODEL]: {} }; // the last good document of each

function heard(answers) {
  for (const path of Object.keys(last)) if (good(answers[path])) last[path] = answers[path].document;
  if (!good(answers[DRIFT])) return lost(answers[DRIFT]);
  heardAt = Date.now();
  document.documentElement.dataset.link = "live";
  show("lost", false);
  setText(byId("lost-words"), "");
  const silent = silentSince(last[DRIFT], answers[DRIFT].clock);
  const ready = { status: answers[READY].status, document: answers[READY].document };
  const now = JSON.stringify([last, ready, silent]);
  if (now !== shown) {
    shown = now;
    render(whole(last[DRIFT]), list(last[DECISIONS].decisions), last[MODEL], ready, silent);
  }
  return true;
}

function render(status, decisions, model, ready, silent) {
  renderHealth(status, model, ready, silent);
  renderFacts(status, model);
  renderLinks(model);
  renderRollout(status, model);
  renderCharts(status, decisions);
  renderMoved(status);
  renderDecisions(decisions);
  renderLabels(status.labels);
  renderVersions(status.versions, model);
}

function lost({ status, document: problem }) {
  document.documentElement.dataset.link = "lost";
  const why = problem?.detail ? `: ${problem.detail}` : "";
  setText(byId("lost-words"), status === 0 ? "The service does not answer." : `The service answers with status ${status}${why}.`);
  show("lost", true);
  return false;
}

/** Tell, every second, how long ago the service was heard; outside the live regions, which would not be silent. */
function tick() {
  const ago = heardAt === null ? null : Math.max(0, (Date.now() - heardAt) / 1000);
  const words = ago === null ? "Not heard yet" : `Last heard ${format.duration(ago)} ago`;
  const alive = document.documentElement.dataset.link === "live";
  setText(byId("link-words"), alive && ago < 5 ? "Live" : words);
  const next = askAt === null ? "" : ` Asking again in ${format.duration(Math.max(0, (askAt - Date.now()) / 1000))}.`;
  setText(byId("lost-since"), `${words}; what the page shows is from then.${next}`);
}

byId("lost-icon").append(icon("degraded"));
const askNow = poll([DRIFT, DECISIONS, MODEL, READY], heard, (pause) => {
  askAt = Date.now() + pause;
  tick();
});
byId("retry").addEventListener("click", askNow);
setInterval(tick, 1000);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
