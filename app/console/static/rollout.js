// Which version is on its way, how far has it come, and is another one being trained?

import { byId, element, icon, setText, show } from "./dom.js";
import * as format from "./format.js";

const STAGES = [0.05, 0.25, 1]; // as declared by default; the service may say others

/** Steps of the way, and the index of the one that is under way. */
function way(rollout) {
  const shares = (Array.isArray(rollout.stages) ? rollout.stages : STAGES).filter((share) => share > 0);
  const share = Number(rollout.share ?? 0);
  if (share > 0 && !shares.includes(share)) shares.push(share);
  shares.sort((a, b) => a - b);
  const names = ["Shadow", ...shares.map(format.percent), "Champion"];
  if (rollout.stage === "champion") return [names, names.length - 1];
  return [names, share > 0 ? shares.indexOf(share) + 1 : 0];
}

function stages(rollout) {
  const [names, at] = way(rollout);
  return names.map((name, index) => {
    const state = index < at ? "done" : index === at ? "now" : "later";
    const said = { done: ", done", now: ", under way", later: "" }[state];
    const dot = element("span", { class: "dot", "aria-hidden": "true" }, state === "done" ? icon("check") : null);
    return element(
      "li",
      { "data-state": state, "aria-current": state === "now" ? "step" : null },
      dot,
      element("span", {}, name, element("span", { class: "visually-hidden" }, said)),
    );
  });
}

function check({ name, ok, words }) {
  const [state, said] = ok === true ? ["ok", "passes"] : ok === false ? ["breach", "breached"] : ["waiting", "waits"];
  return element(
    "li",
    { "data-state": state },
    icon(state),
    element("span", {}, element("strong", {}, format.words(name)), element("span", { class: "visually-hidden" }, ` ${said}`), words ? ` ${words}` : ""),
  );
}

/** Show the rollout that is under way and the retraining, or say that there is none. */
export function renderRollout(status, model) {
  const { rollout, retrain } = status;
  const champion = status.versions.find((version) => version.role === "champion")?.version ?? model.version;
  show("stages", Boolean(rollout));
  show("rollout-more", Boolean(rollout));
  if (rollout) {
    const rows = rollout.rows ?? 0;
    const needed = rollout.needed ?? 0;
    const scored = rollout.stage === "champion" ? "labelled rows" : Number(rollout.share ?? 0) > 0 ? "rows answered" : "rows scored unheard";
    const name = format.version(rollout.challenger);
    setText(byId("rollout-aside"), rollout.stage === "champion" ? `${name} is champion, and watched` : `${name} beside ${format.version(champion)}`);
    byId("stages").replaceChildren(...stages(rollout));
    setText(byId("rollout-rows-label"), `${format.count(rows)} of ${format.count(needed)} ${scored}`);
    byId("rollout-rows").max = Math.max(needed, 1);
    byId("rollout-rows").value = Math.min(rows, Math.max(needed, 1));
    byId("checks").replaceChildren(...rollout.checks.map(check));
  } else {
    const words = champion === undefined ? "No version answers yet" : `No challenger: ${format.version(champion)} answers every row`;
    setText(byId("rollout-aside"), words);
  }
  show("retraining", Boolean(retrain));
  if (retrain) {
    byId("retraining").replaceChildren(
      icon("loop"),
      element(
        "span",
        {},
        element("strong", {}, retrain.state === "probing" ? "Probing" : `Retraining ${format.words(retrain.state).toLowerCase()}`),
        retrain.since ? ` since ${format.moment(retrain.since)} by the clock` : "",
        retrain.id ? element("code", {}, String(retrain.id)) : null,
      ),
    );
  }
}
