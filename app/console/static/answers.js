// What does an answer hold, whatever is missing in it? The parts that show it may count on every list and object.

import { when } from "./format.js";

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

/** The objects of a list; none when it is no list. */
export const list = (value) => (Array.isArray(value) ? value.filter(isObject) : []);

const SILENCE = 60; // seconds after which an actor that has not reported is taken for silent
const TURNS = 5; // or so many of its turns, where it makes them seldom

/** Since when the drift actor has been silent, by the service's clock; null when it has not, or does not say. */
export function silentSince(status, clock) {
  const written = when(status.written);
  if (written === null) return null;
  return clock - written > Math.max(SILENCE, TURNS * (status.interval ?? 0)) * 1000 ? written : null;
}

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
