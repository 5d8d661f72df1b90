// What can be done to several chosen objects at once.

import { chosenOf } from "./chosen.js";
import { h, icon } from "./dom.js";
import { counted, refill, saidWithUndo } from "./parts.js";

/** The bar in an element. @param done gives a command, see `mountObjects`. @returns a function that draws it. */
export function mountBulk(place, store, done) {
  const chosen = chosenOf(store);

  /** Give a command for each of them; false where one failed. */
  async function forAll(command, argsOf) {
    for (const id of chosen.ids) if ((await done(command, argsOf(id))) === false) return false;
    return true;
  }

  async function mergeChosen() {
    const [id, ...others] = [...chosen.ids].sort((one, other) => one - other);
    const { name } = store.object(id);
    for (const other of others) if ((await done("merge", { id, other })) === false) return;
    store.select(id);
    chosen.set([]);
    saidWithUndo(
      store,
      `${counted(others.length + 1, "object")} made one: ${name}.${others.length > 1 ? " Each Undo takes one step back." : ""}`,
    );
  }

  async function removeChosen() {
    const number = chosen.ids.size;
    if (!(await forAll("remove", (id) => ({ id })))) return;
    saidWithUndo(store, `${counted(number, "object")} deleted.${number > 1 ? " Each Undo brings one back." : ""}`);
  }

  function draw() {
    const objects = [...chosen.ids].map((id) => store.object(id)).filter(Boolean);
    const areHidden = objects.every((object) => object.is_hidden);
    refill(
      place,
      objects.length > 0 && [
        h(
          "div",
          { class: "row spread" },
          h("strong", {}, `${objects.length} chosen`),
          h(
            "button",
            {
              type: "button",
              class: "link",
              "data-key": "choose-all",
              onclick: () => chosen.set(store.state.objects.map((object) => object.id)),
            },
            "All",
          ),
          h("button", { type: "button", class: "link", "data-key": "choose-none", onclick: () => chosen.set([]) }, "None"),
        ),
        h(
          "div",
          { class: "row" },
          h(
            "button",
            {
              type: "button",
              class: "grow",
              disabled: objects.length < 2,
              "data-key": "bulk-merge",
              "data-test": "bulk-merge",
              onclick: mergeChosen,
            },
            icon("merge"),
            "Merge",
          ),
          h(
            "button",
            {
              type: "button",
              class: "grow",
              "data-key": "bulk-hide",
              onclick: () => forAll("hide", (id) => ({ id, is_hidden: !areHidden })),
            },
            icon(areHidden ? "eye" : "hidden"),
            areHidden ? "Show" : "Hide",
          ),
          h(
            "button",
            { type: "button", class: "grow danger", "data-key": "bulk-remove", onclick: removeChosen },
            icon("trash"),
            "Delete",
          ),
        ),
      ],
    );
  }

  return draw;
}
