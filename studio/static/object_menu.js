// What can be done to one object, as a menu.

import { h, icon } from "./dom.js";

/**
 * The menu of an object.
 * @param actions done(command, args, text), startRenaming(id), openForm(kind, id), close().
 */
export function objectMenu(store, object, { done, startRenaming, openForm, close }) {
  const { id, name, is_locked: isLocked } = object;
  const { frame, range } = store;
  const isBarrier = object.given.includes(frame);
  const hasOthers = store.state.objects.length > 1;
  const last = store.state.num_frames - 1;

  const item = (picture, text, test, run, isOff = isLocked, kind = "") =>
    h(
      "button",
      {
        type: "button",
        role: "menuitem",
        tabindex: -1,
        class: `menu-item ${kind}`,
        disabled: isOff,
        "data-test": `${test}-${id}`,
        "data-key": `${test}-${id}`,
        onclick: () => {
          close();
          run();
        },
      },
      picture ? icon(picture) : h("span", { class: "icon" }),
      text,
    );

  const move = (event) => {
    const items = [...event.currentTarget.querySelectorAll("[role=menuitem]:not(:disabled)")];
    const at = items.indexOf(document.activeElement);
    const next = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: -1 }[event.key];
    if (event.key === "Escape" || event.key === "Tab") close();
    else if (next !== undefined) items.at(next % items.length)?.focus();
    else return;
    event.preventDefault();
    event.stopPropagation();
  };

  return h(
    "div",
    { role: "menu", class: "menu", "aria-label": `What to do with ${name}`, onkeydown: move },
    item("edit", "Rename", "do-rename", () => startRenaming(id)),
    isBarrier
      ? item("pin", `Release frame ${frame}`, "do-release", () =>
          done("release", { id, frame }, `${name} may change on frame ${frame} again.`),
        )
      : item("pin", `Pin frame ${frame}: it is right`, "do-pin", () =>
          done("pin", { id, frame }, `${name} is kept as it is on frame ${frame}.`),
        ),
    item("merge", "Merge with…", "do-merge", () => openForm("merge", id), isLocked || !hasOthers),
    item("swap", "Swap with…", "do-swap", () => openForm("swap", id), isLocked || !hasOthers),
    item(
      "split",
      `Split off from frame ${frame} on`,
      "do-split",
      async () => {
        const split = await done("split", { id, first: frame }, `${name} from frame ${frame} on is an object of its own.`);
        if (split) store.select(split.id);
      },
      isLocked || frame === 0,
    ),
    range &&
      item("", `Clear frames ${range.first} to ${range.last}`, "do-clear-range", () =>
        done("clear", { id, first: range.first, last: range.last }, `${name} cleared on frames ${range.first} to ${range.last}.`),
      ),
    item("", `Clear this frame`, "do-clear-frame", () =>
      done("clear", { id, first: frame, last: frame }, `${name} cleared on frame ${frame}.`),
    ),
    item("", `Clear from here to the end`, "do-clear", () =>
      done("clear", { id, first: frame, last }, `${name} cleared from frame ${frame} on.`),
    ),
    item("trash", "Delete", "do-remove", () => done("remove", { id }, `${name} deleted.`), isLocked, "danger"),
    isLocked && h("p", { class: "hint" }, "It is locked: unlock it to change it."),
  );
}
