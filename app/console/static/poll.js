// When is the service asked? Every two seconds while somebody looks; more and more seldom while it is silent.

const INTERVAL = 2_000;
const LONGEST = 30_000;
const PATIENCE = 10_000;

/** One answer: its status (0: none came), its document (null when it was not JSON), and the service's clock. */
async function ask(path) {
  try {
    const signal = AbortSignal.timeout(PATIENCE);
    const response = await fetch(path, { signal, cache: "no-cache", headers: { accept: "application/json" } });
    const text = await response.text();
    const clock = Date.parse(response.headers.get("date")) || Date.now();
    try {
      return { status: response.status, document: JSON.parse(text), clock };
    } catch {
      return { status: response.status, document: null, clock };
    }
  } catch {
    return { status: 0, document: null, clock: Date.now() };
  }
}

/**
 * Ask for all paths again and again. `heard(answers)` gets {path: answer} after every turn and says whether the
 * service was heard; `waits(milliseconds)` gets the time to the next turn. Returns a function that asks at once.
 */
export function poll(paths, heard, waits) {
  let failures = 0;
  let timer = null;
  let asking = false;

  async function turn() {
    clearTimeout(timer);
    if (asking || document.hidden) return;
    asking = true;
    try {
      const answers = await Promise.all(paths.map(ask));
      failures = heard(Object.fromEntries(paths.map((path, i) => [path, answers[i]]))) ? 0 : failures + 1;
    } finally {
      asking = false;
      const pause = Math.min(INTERVAL * 2 ** failures, LONGEST);
      waits(pause);
      timer = setTimeout(turn, pause);
    }
  }

  document.addEventListener("visibilitychange", turn);
  window.addEventListener("online", turn);
  turn();
  return turn;
}
