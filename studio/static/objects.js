// Objects: the list of what is followed, and what can be done to each.

import { chosenOf } from "./chosen.js";
import { h, iconButton } from "./dom.js";
import { mountBulk } from "./object_bulk.js";
import { pairForm } from "./object_forms.js";
import { objectMenu } from "./object_menu.js";
import { counted, drawnWhenChanged, panel, refill, saidWithUndo } from "./parts.js";

export function mountObjects(element, store) {
  const { body, note } = panel(element, "Objects", "objects");
  const list = h("ul", { class: "plain objects", "data-test": "object-list" });
  const bulk = h("div", { class: "bulk" });
  body.append(list, bulk);
  const chosen = chosenOf(store);
  const drawBulk = mountBulk(bulk, store, done);
  const state = { renamed: null, form: null, menu: null }; // an object's id; {kind, id}; an object's id

  /** Give a command and say what it did; false where it failed, which the store has said. */
  async function done(command, args, text) {
    try {
      const result = await store.do(command, args);
      if (text) saidWithUndo(store, text);
      return result ?? true;
    } catch {
      return false;
    }
  }

  // ---- renaming ----

  function startRenaming(id, name = null) {
    state.renamed = id;
    draw();
    const input = list.querySelector(`[data-key="rename-${id}"]`);
    if (input && name !== null) input.value = name;
    input?.focus();
    input?.select();
  }

  async function rename(id, name, isRepeated) {
    const isDone = await done("rename", { id, name });
    if (!isDone && isRepeated && state.renamed === null && store.object(id)) startRenaming(id, name); // nothing is typed twice
  }

  function endRenaming(object, isKept) {
    if (state.renamed !== object.id) return;
    const input = list.querySelector(`[data-key="rename-${object.id}"]`);
    const name = input.value.trim();
    const hadFocus = document.activeElement === input;
    state.renamed = null;
    if (isKept && name && name !== object.name) rename(object.id, name, hadFocus);
    // redrawn after the click that ended it has reached its button
    setTimeout(() => {
      draw();
      if (hadFocus && state.renamed === null) list.querySelector(`[data-key="name-${object.id}"]`)?.focus();
    });
  }

  function nameOf(object) {
    if (state.renamed === object.id) {
      return h("input", {
        type: "text",
        class: "object-rename",
        value: object.name,
        maxlength: 80,
        "aria-label": `New name of ${object.name}`,
        "data-key": `rename-${object.id}`,
        "data-test": `rename-${object.id}`,
        onkeydown: (event) => {
          event.stopPropagation();
          if (event.key === "Enter") endRenaming(object, true);
          if (event.key === "Escape") endRenaming(object, false);
        },
        onblur: () => endRenaming(object, true),
      });
    }
    return h(
      "button",
      {
        type: "button",
        class: "object-name",
        "aria-pressed": String(store.selected === object.id),
        title: "Select; double click to rename",
        "data-key": `name-${object.id}`,
        "data-test": `object-${object.id}`,
        onclick: (event) => {
          if (event.ctrlKey || event.metaKey || event.shiftKey) chooseTo(object.id, event.shiftKey);
          else store.select(store.selected === object.id ? null : object.id);
        },
        ondblclick: () => startRenaming(object.id),
        onkeydown: (event) => event.key === "F2" && startRenaming(object.id),
      },
      object.name,
    );
  }

  // ---- choosing several ----

  /** Choose or leave out an object; with shift, all from the selected one to it. */
  function chooseTo(id, isRange) {
    const ids = store.state.objects.map((object) => object.id);
    const start = ids.indexOf(store.selected);
    if (!isRange || start < 0) return chosen.toggle(id);
    const [from, to] = [start, ids.indexOf(id)].sort((one, other) => one - other);
    chosen.set(new Set([...chosen.ids, ...ids.slice(from, to + 1)]));
  }

  // ---- a row ----

  function row(object) {
    const { id, name } = object;
    const isSelected = store.selected === id;
    const color = h("input", {
      type: "color",
      value: object.color,
      "aria-label": `Colour of ${name}`,
      title: "Colour",
      disabled: object.is_locked,
      "data-key": `color-${id}`,
      "data-test": `color-${id}`,
      onchange: async (event) => (await done("recolor", { id, color: event.target.value })) || draw(), // what it is
    });
    const barriers = object.given.length;
    const facts = [
      `#${id}`,
      object.class_name !== name.replace(/ \d+$/, "") && object.class_name,
      counted(barriers, "barrier"),
    ].filter(Boolean);
    return h(
      "li",
      {
        class: `object${isSelected ? " selected" : ""}${object.is_hidden ? " is-hidden" : ""}`,
        style: { "--object": object.color },
      },
      h(
        "div",
        { class: "object-row" },
        h("input", {
          type: "checkbox",
          class: "object-choose",
          checked: chosen.ids.has(id),
          "aria-label": `Choose ${name}`,
          title: "Choose several",
          "data-key": `choose-${id}`,
          "data-test": `choose-${id}`,
          onchange: () => chosen.toggle(id),
        }),
        color,
        h(
          "div",
          { class: "object-words" },
          nameOf(object),
          h(
            "small",
            { title: "A barrier is a frame that you gave, corrected or pinned: tracking never changes it." },
            facts.join(" · "),
          ),
        ),
        iconButton(
          object.is_hidden ? "hidden" : "eye",
          object.is_hidden ? `Show ${name}` : `Hide ${name}`,
          () => done("hide", { id, is_hidden: !object.is_hidden }),
          { "data-key": `hide-${id}`, "data-test": `hide-${id}`, "aria-pressed": String(object.is_hidden) },
        ),
        iconButton(
          object.is_locked ? "lock" : "unlock",
          object.is_locked ? `Unlock ${name}` : `Lock ${name}`,
          () => done("lock", { id, is_locked: !object.is_locked }),
          { "data-key": `lock-${id}`, "data-test": `lock-${id}`, "aria-pressed": String(object.is_locked) },
        ),
        iconButton("more", `More for ${name}`, () => toggleMenu(id), {
          "data-key": `menu-${id}`,
          "data-test": `menu-${id}`,
          "aria-expanded": String(state.menu === id),
          "aria-haspopup": "menu",
        }),
      ),
      state.menu === id && objectMenu(store, object, { done, startRenaming, openForm, close: closeMenu }),
      state.form?.id === id && pairForm(store, object, state.form.kind, { done, close: closeForm }),
    );
  }

  function pressedOutside(event) {
    if (!event.target.closest?.("[role=menu], [aria-haspopup=menu]")) closeMenu(false);
  }

  function toggleMenu(id) {
    if (state.menu === id) return closeMenu();
    document.addEventListener("pointerdown", pressedOutside);
    state.menu = id;
    state.form = null;
    draw();
    list.querySelector("[role=menuitem]:not(:disabled)")?.focus({ preventScroll: true });
    list.querySelector("[role=menu]")?.scrollIntoView({ block: "nearest" });
  }

  function closeMenu(isFocused = true) {
    const id = state.menu;
    document.removeEventListener("pointerdown", pressedOutside);
    state.menu = null;
    draw();
    if (isFocused) list.querySelector(`[data-key="menu-${id}"]`)?.focus();
  }

  function openForm(kind, id) {
    state.form = { kind, id };
    draw();
    list.querySelector(".pair-form select")?.focus();
  }

  function closeForm() {
    state.form = null;
    draw();
  }

  function draw() {
    const { objects } = store.state;
    if (state.renamed !== null && !store.object(state.renamed)) state.renamed = null;
    note.textContent = objects.length ? String(objects.length) : "";
    refill(
      list,
      objects.length
        ? objects.map(row)
        : h("li", { class: "empty" }, "None yet. Find something by words above, or click on it in the picture."),
    );
    drawBulk();
  }

  store.on("closed", () => document.removeEventListener("pointerdown", pressedOutside));
  store.on(
    "state",
    drawnWhenChanged(() => [store.state.objects], draw),
  );
  const drawMenu = () => (state.menu !== null || state.form !== null) && draw();
  store.on("frame", drawMenu);
  store.on("range", drawMenu);
  store.on("selected", () => {
    draw();
    list.querySelector(".selected")?.scrollIntoView({ block: "nearest" });
  });
  chosen.on(draw);
  draw();
}
