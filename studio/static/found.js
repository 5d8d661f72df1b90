// What the words found on a frame: a list to take from.

import { h } from "./dom.js";
import { thumbnail } from "./parts.js";

/** The list of a store's candidates, and the buttons that take the accepted ones or none. */
export function foundList(store, api, accept, isBusy) {
  const { frame, items } = store.candidates;
  const number = items.filter((item) => item.accepted).length;
  const acceptAll = (isAccepted) =>
    store.setCandidates({ ...store.candidates, items: items.map((item) => ({ ...item, accepted: isAccepted })) });
  return [
    h(
      "div",
      { class: "row spread" },
      h("span", {}, `${items.length} found`, frame !== store.frame && [" on ", frameLink(store, frame)]),
      h(
        "button",
        { type: "button", class: "link", "data-key": "item-all", onclick: () => acceptAll(number < items.length) },
        number < items.length ? "All" : "None",
      ),
    ),
    h(
      "ul",
      { class: "plain found-list" },
      items.map((item) => foundRow(store, api, item)),
    ),
    h(
      "div",
      { class: "row" },
      h(
        "button",
        {
          type: "button",
          class: "primary grow",
          disabled: !number || isBusy,
          "data-key": "accept",
          "data-test": "accept",
          onclick: accept,
        },
        number ? `Accept ${number}` : "Accept",
      ),
      h(
        "button",
        { type: "button", "data-key": "discard", "data-test": "discard", onclick: () => store.setCandidates(null) },
        "Discard",
      ),
    ),
  ];
}

const frameLink = (store, frame) =>
  h(
    "button",
    { type: "button", class: "link", "data-key": "found-frame", onclick: () => store.setFrame(frame) },
    `frame ${frame}`,
  );

function foundRow(store, api, item) {
  const { width, height } = store.state;
  const known = store.object(item.known_as);
  const confidence = item.confidence.toFixed(2);
  return h(
    "li",
    {},
    h(
      "label",
      { class: "found-row", style: { "--object": item.color } },
      h("input", {
        type: "checkbox",
        checked: item.accepted,
        "data-key": `item-${item.key}`,
        "data-test": `item-${item.key}`,
        onchange: (event) => store.setCandidate(item.key, { accepted: event.target.checked }),
      }),
      thumbnail(api.frameUrl(store.token, store.candidates.frame, 640), item.box, [width, height], [44, 44]),
      h(
        "span",
        { class: "found-words" },
        h("span", { class: "found-label" }, item.label),
        known && h("small", { class: "tag" }, `already ${known.name}`),
      ),
      h(
        "span",
        { class: "found-confidence", title: `Confidence ${confidence}` },
        h("span", { class: "bar", style: { "--part": `${Math.round(100 * item.confidence)}%` } }),
        confidence,
      ),
    ),
  );
}
