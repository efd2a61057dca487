// Is the model well? The state in a sentence, what is next, and the few figures one looks for first.

import { byId, element, icon, setText, show } from "./dom.js";
import { recentLoss } from "./charts.js";
import * as format from "./format.js";

const STATES = {
  ok: "Well",
  watch: "Under watch",
  drift: "The world moved",
  fault: "Upstream fault",
  degraded: "Degraded",
  unknown: "Not known yet",
};

/** The state of a `/drift` answer, one of STATES, and its sentence. */
function healthOf(status, ready, silent) {
  if (ready.status >= 400) {
    const words = ready.document?.detail ?? "The service is up, but no model is ready to answer.";
    return { state: "degraded", words: `Not ready: ${words}` };
  }
  if (silent !== null) {
    return { state: "degraded", words: `Nobody watches: the drift actor has been silent since ${format.moment(silent)}. Rows are still answered.` };
  }
  if (!status.health) return { state: "unknown", words: status.status ? `${format.words(status.status)}.` : "The service has not said how it is." };
  const { state, words } = status.health;
  return { state: Object.hasOwn(STATES, state) ? state : "unknown", words: words ?? "" };
}

/** Say how the model is, in the banner and in the window's title. */
export function renderHealth(status, model, ready, silent) {
  const { state, words } = healthOf(status, ready, silent);
  const name = status.model ?? model.model?.split("/")[0] ?? location.pathname.split("/").filter(Boolean).at(-1) ?? "Evertrue";
  const banner = byId("health");
  if (banner.dataset.state !== state || !byId("health-icon").firstChild) byId("health-icon").replaceChildren(icon(state));
  banner.dataset.state = state;
  setText(byId("name"), String(name));
  setText(byId("health-state"), STATES[state]);
  setText(byId("health-words"), String(words));
  setText(byId("next-words"), String(status.next ?? ""));
  show("next", Boolean(status.next));
  document.title = `${STATES[state]} · ${name} · Evertrue`;
}

/** Write the figures one looks for first: version, loss, labels, traffic, and how far the actor has read. */
export function renderFacts(status, model) {
  const champion = status.versions.find((version) => version.role === "champion");
  const labels = status.labels ?? {};
  const expected = status.loss.expected;
  const recent = recentLoss(status.loss.days.filter((row) => Number.isFinite(row.loss)));
  const traffic = status.traffic.days;
  const open = status.features.filter((feature) => feature.state === "drift" || feature.state === "fault").length;
  const facts = [
    ["Answering", format.version(champion?.version ?? model.version), champion?.since ? `since ${format.date(champion.since)}` : model.device ? `on ${model.device}` : ""],
    ["Loss, last 7 days", format.metric(recent), Number.isFinite(expected) && recent !== null ? `${format.change(recent / expected - 1)} on ${format.metric(expected)} expected` : "no labels yet"],
    ["Labels joined", format.percent(labels.coverage), labels.delay_seconds?.p50 !== undefined ? `median delay ${format.duration(labels.delay_seconds.p50)}` : ""],
    ["Features that moved", status.features.length ? format.count(open) : format.count(null), status.features.length ? `of ${format.count(status.features.length)} watched` : ""],
    ["Rows, last day", format.count(traffic.at(-1)?.rows), traffic.length ? format.date(traffic.at(-1).day) : ""],
    ["Data read until", format.date(status.as_of), [status.as_of ? `${format.hour(status.as_of)} UTC` : null, status.step === undefined ? null : `step ${format.count(status.step)}`].filter(Boolean).join(" · ")],
  ];
  byId("facts").replaceChildren(
    ...facts.map(([term, figure, more]) =>
      element("div", { class: "fact" }, element("dt", {}, term), element("dd", {}, figure), element("dd", { class: "more-of" }, more)),
    ),
  );
}
