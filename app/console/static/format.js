// How are numbers, times and names written? In one way all over the page.

const LOCALE = "en-GB";
const NONE = "–";
const known = (value) => typeof value === "number" && Number.isFinite(value);
const fixed = (digits, more = {}) =>
  new Intl.NumberFormat(LOCALE, { minimumFractionDigits: digits, maximumFractionDigits: digits, ...more });
const clock = (options) => new Intl.DateTimeFormat(LOCALE, { timeZone: "UTC", ...options });

const WHOLE = fixed(0);
const SIGNED = fixed(2, { signDisplay: "exceptZero" });
const PERCENT = new Intl.NumberFormat(LOCALE, { style: "percent", maximumFractionDigits: 1 });
const SHARE = fixed(1, { style: "percent" });
const CHANGE = fixed(1, { style: "percent", signDisplay: "exceptZero" });
const PLAIN = new Intl.NumberFormat(LOCALE, { maximumSignificantDigits: 6 });
const SMALL = new Intl.NumberFormat(LOCALE, { maximumSignificantDigits: 4 });
const TINY = new Intl.NumberFormat(LOCALE, { notation: "scientific", maximumFractionDigits: 3 });
const COMPACT = new Intl.NumberFormat(LOCALE, { notation: "compact", maximumSignificantDigits: 3 });
const DATE = clock({ day: "numeric", month: "short", year: "numeric" });
const HOURS = clock({ hour: "2-digit", minute: "2-digit" });
const MOMENT = clock({ day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit" });

const over = (format) => (value) => (known(value) ? format.format(value).replace("-", "−").replace("%", "\u202f%") : NONE);

export const count = over(WHOLE);
export const compact = over(COMPACT);
export const percent = over(PERCENT);
export const share = over(SHARE);
export const change = over(CHANGE);
export const plain = over(PLAIN);
export const shift = (value) => (known(value) ? `${over(SIGNED)(value)} σ` : NONE);

/** A loss or another metric: four digits after the point, large numbers none; a small one keeps four that count. */
export const metric = over({
  format(value) {
    const size = Math.abs(value);
    if (size >= 100) return WHOLE.format(value);
    return (size === 0 || size >= 0.01 ? fixed(4) : size >= 1e-6 ? SMALL : TINY).format(value);
  },
});

/** A number at an axis, as exact as the step to the next one is. */
export function tick(value, step) {
  const unit = 1000 ** Math.max(0, Math.floor(Math.log10(Math.max(Math.abs(value), 1)) / 3));
  const digits = Math.min(20, Math.max(0, Math.ceil(-Math.log10(step / (unit > 1000 ? unit : 1)) - 1e-9)));
  if (digits > 6) return value === 0 ? "0" : TINY.format(value);
  return fixed(digits, unit > 1000 ? { notation: "compact" } : { useGrouping: false }).format(value);
}

/** Milliseconds since 1970 of an ISO text, which is UTC where it names no zone, or of a number; null when neither. */
export function when(value) {
  if (known(value)) return value;
  if (typeof value !== "string" || value === "") return null;
  const time = Date.parse(value.includes("T") && !/(Z|[+-]\d\d:?\d\d)$/.test(value) ? `${value}Z` : value);
  return Number.isNaN(time) ? null : time;
}

const written = (format) => (value) => {
  const time = when(value);
  return time === null ? NONE : format.format(time);
};
export const date = written(DATE);
export const moment = written(MOMENT);
export const hour = written(HOURS);

/** A duration in seconds, in its largest sensible unit. */
export function duration(seconds) {
  if (!known(seconds)) return NONE;
  const units = [["d", 86400], ["h", 3600], ["min", 60]];
  const [name, size] = units.find(([, unit]) => seconds >= unit * 0.995) ?? ["s", 1];
  const value = seconds / size;
  return `${(value < 9.95 && name !== "s" ? fixed(1) : WHOLE).format(value)} ${name}`;
}

/** A bare version number as "v3"; other names as they are. */
export const version = (name) =>
  name === null || name === undefined || name === "" ? NONE : /^\d+$/.test(String(name)) ? `v${name}` : String(name);

/** An identifier such as `retrain_failed` as words. */
export function words(name) {
  const text = String(name ?? "").replaceAll("_", " ").trim();
  return text ? text[0].toUpperCase() + text.slice(1) : NONE;
}

/** One of several: `many(3, "row")` is "3 rows". */
export const many = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
