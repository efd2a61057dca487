// What does an answer hold, whatever is missing in it? The parts that show it may count on every list and object.

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

/** The objects of a list; none when it is no list. */
export const list = (value) => (Array.isArray(value) ? value.filter(isObject) : []);

/** A `/drift` answer in which every list is one. */
export function whole(status) {
  const { health, loss, traffic, features, rollout, retrain } = status;
  return {
    ...status,
    health: isObject(health) ? health : null,
    loss: { ...loss, days: list(loss?.days) },
    traffic: { days: list(traffic?.days) },
    features: list(features)
      .filter((feature) => feature.name !== undefined)
      .map((feature) => ({ ...feature, bins: list(feature.bins) })),
    findings: list(status.findings),
    rollout: isObject(rollout) ? { ...rollout, checks: list(rollout.checks) } : null,
    retrain: isObject(retrain) ? retrain : null,
    versions: list(status.versions),
  };
}
