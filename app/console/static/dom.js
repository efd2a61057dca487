// How is data put on the page? As text and attributes of elements, never as markup.

const SVG = "http://www.w3.org/2000/svg";

// Paths on a 24 x 24 grid, drawn with a stroke; every state and every kind of decision has its own shape.
const PATHS = {
  ok: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18ZM8 12.5l2.7 2.7L16 9.5",
  watch: "M2 12s3.6-6.5 10-6.5S22 12 22 12s-3.6 6.5-10 6.5S2 12 2 12ZM12 9a3 3 0 1 0 0 6 3 3 0 0 0 0-6Z",
  drift: "M3 17l6-6 4 4 8-8M15 7h6v6",
  fault: "M8 3h8l5 5v8l-5 5H8l-5-5V8ZM12 7.5v5.5M12 16.5v.01",
  degraded: "M12 4 2.5 20h19ZM12 10v4.5M12 17.2v.01",
  unknown: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18ZM9.5 9.6a2.6 2.6 0 1 1 3.6 2.4c-.8.4-1.1.9-1.1 1.8M12 16.8v.01",
  waiting: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18ZM12 7.5V12l3 2",
  breach: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18ZM9 9l6 6M15 9l-6 6",
  check: "M5 12.5l4.5 4.5L19 7.5",
  bell: "M6 16V11a6 6 0 1 1 12 0v5l1.5 2.5h-15ZM10 21h4",
  loop: "M20 11A8 8 0 0 0 6 6.5L4 8.5M4 4v4.5h4.5M4 13a8 8 0 0 0 14 4.5l2-2M20 20v-4.5h-4.5",
  probe: "M10.5 4a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13ZM15.5 15.5 21 21",
  up: "M12 20V5M6 11l6-6 6 6",
  back: "M4 9h11a5 5 0 0 1 0 10H8M8 5 4 9l4 4",
  layers: "M12 4l9 5-9 5-9-5ZM3 14l9 5 9-5",
  open: "M9 6l6 6-6 6",
};

/** An SVG icon; its meaning always stands beside it in words, so it is hidden from screen readers. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  for (const [key, value] of Object.entries({ viewBox: "0 0 24 24", "aria-hidden": "true", class: "icon" })) {
    svg.setAttribute(key, value);
  }
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", PATHS[name] ?? PATHS.unknown);
  svg.append(path);
  return svg;
}

/** An element with attributes and children; strings become text nodes, null and undefined nothing. */
export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === true) node.setAttribute(key, "");
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** The page's element of that id. */
export const byId = (id) => document.getElementById(id);

/** Set a text only when it differs, so that live regions speak only of news. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Show or hide the element of that id. */
export function show(id, visible) {
  byId(id).hidden = !visible;
}

/**
 * Make the parent's keyed children those of `items`, in order, after the children it has anyhow; elements whose key is
 * still there are kept: what is open, focused or scrolled stays so.
 */
export function keyed(parent, items, keyOf, create, update = () => {}) {
  const had = [...parent.children].filter((node) => node.dataset.key !== undefined);
  const fixed = parent.childElementCount - had.length;
  const old = new Map(had.map((node) => [node.dataset.key, node]));
  const nodes = items.map((item) => {
    const key = String(keyOf(item));
    const node = old.get(key) ?? create(item);
    old.delete(key);
    node.dataset.key = key;
    update(node, item);
    return node;
  });
  const kept = new Set(nodes);
  const focused = document.activeElement;
  for (const node of had) if (!kept.has(node)) node.remove();
  nodes.forEach((node, index) => {
    const place = parent.children[fixed + index] ?? null;
    if (place !== node) parent.insertBefore(node, place);
  });
  if (parent.contains(focused)) focused.focus({ preventScroll: true }); // an element that is moved loses it
}
