// Where else is this service to be seen? The pages that its declaration names, beside its own documents.

import { list } from "./answers.js";
import { byId, element } from "./dom.js";

/** Show the links of a `/model` answer; only such that a browser opens as a page. */
export function renderLinks(model) {
  const pages = list(model.links).filter(({ address }) => /^https?:\/\//.test(address));
  const anchors = pages.map(({ name, address }) =>
    element("a", { href: address, rel: "noopener noreferrer", target: "_blank" }, String(name)),
  );
  byId("links").replaceChildren(...anchors);
}
