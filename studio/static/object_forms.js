// With whom, and where: the small form of merging and swapping.

import { h } from "./dom.js";
import { segments } from "./parts.js";

const WORDS = {
  merge: {
    title: (name) => `Merge into ${name}`,
    hint: "What the other one is on these frames becomes part of this one.",
    button: "Merge",
    said: (name, other) => `${other} merged into ${name}.`,
  },
  swap: {
    title: (name) => `Swap ${name}`,
    hint: "On these frames the two change places: for when the numbers were mixed up.",
    button: "Swap",
    said: (name, other, where) => `${name} and ${other} swapped ${where}.`,
  },
};

/** The form under an object's row; `kind` is "merge" or "swap". */
export function pairForm(store, object, kind, { done, close }) {
  const words = WORDS[kind];
  const others = store.state.objects.filter((other) => other.id !== object.id);
  const { range, frame } = store;
  const last = store.state.num_frames - 1;
  let where = range ? "range" : kind === "swap" && frame > 0 ? "here" : "all";
  const other = h(
    "select",
    { "aria-label": `${words.button} ${object.name} with`, "data-test": `${kind}-other`, "data-key": `${kind}-other` },
    others.map((each) =>
      h("option", { value: each.id, disabled: each.is_locked }, `${each.name} (#${each.id})${each.is_locked ? ", locked" : ""}`),
    ),
  );
  const spans = {
    all: { first: 0, last },
    here: { first: frame, last },
    range: range && { first: range.first, last: range.last },
  };
  const said = {
    all: "in the whole video",
    here: `from frame ${frame} on`,
    range: range && `on frames ${range.first} to ${range.last}`,
  };

  async function run() {
    const chosen = others.find((each) => each.id === Number(other.value));
    if (!chosen) return;
    close();
    const isDone = await done(
      kind,
      { id: object.id, other: chosen.id, ...spans[where] },
      words.said(object.name, chosen.name, said[where]),
    );
    if (isDone) store.select(object.id);
  }

  const choices = { all: "Whole video", here: `From ${frame} on`, ...(range && { range: `${range.first}–${range.last}` }) };
  return h(
    "form",
    {
      class: "pair-form",
      "data-test": `${kind}-form`,
      onsubmit: (event) => (event.preventDefault(), run()),
      onkeydown: (event) => event.key === "Escape" && (event.stopPropagation(), close()),
    },
    h("strong", {}, words.title(object.name)),
    h("label", { class: "field-row" }, h("span", {}, "with"), other),
    segments("On which frames", `${kind}-where`, choices, where, (value) => (where = value)),
    h("p", { class: "hint" }, words.hint),
    h(
      "div",
      { class: "row" },
      h("button", { type: "submit", class: "primary grow", "data-test": `${kind}-run` }, words.button),
      h("button", { type: "button", onclick: close }, "Cancel"),
    ),
  );
}
