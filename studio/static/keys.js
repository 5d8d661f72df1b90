// Keys: one table says which there are, does what they are for, and is what "?" shows.

import { clickCrosshair, moveCrosshair } from "./crosshair.js";
import { h, iconButton } from "./dom.js";
import { toast } from "./toast.js";

const MOVE = 12; // CSS pixels by which a key moves the crosshair
const REPEATED = 3; // times as far when it is held

/**
 * The table: [heading, [[keys, words, does], …]]. A key is as `KeyboardEvent.key` has it, letters small, after "Shift+",
 * "Alt+" or "Ctrl+" (also the Mac's command key). What stands after "|" in the words' keys is only shown.
 */
function tableOf({ store, tools }) {
  const quietly = (promise) => promise?.catch?.(() => {});
  const selected = (does) => () => {
    const object = store.object(store.selected);
    if (object) does(object);
    else toast("No object is selected: click on one first.");
  };
  const press = (selector) => document.querySelector(selector)?.click();
  const tool = (name) => () => store.setTool(store.tool === name ? "point" : name);
  const move = (dx, dy) => (event) => moveCrosshair(tools, dx * MOVE * (event.repeat ? REPEATED : 1), dy * MOVE * (event.repeat ? REPEATED : 1));
  const { num_frames: numFrames } = store.state;
  return [
    ["Watch", [
      [["Space"], "Play, pause", null],
      [["ArrowLeft", ","], "One frame back", () => store.step(-1)],
      [["ArrowRight", "."], "One frame on", () => store.step(1)],
      [["Shift+ArrowLeft"], "Ten frames back", () => store.step(-10)],
      [["Shift+ArrowRight"], "Ten frames on", () => store.step(10)],
      [["Home"], "First frame", () => store.setFrame(0)],
      [["End"], "Last frame", () => store.setFrame(numFrames - 1)],
      [["n"], "Next doubtful place", () => press("[data-test=next-doubt]")],
      [["i"], "Range begins here", () => press("[data-test=range-in]")],
      [["o"], "Range ends here", () => press("[data-test=range-out]")],
      [["+", "="], "Zoom in", () => tools.zoom(1.4)],
      [["-"], "Zoom out", () => tools.zoom(1 / 1.4)],
      [["0"], "Show all of the frame", () => tools.fit()],
    ]],
    ["Find and track", [
      [["t"], "Type what to find", () => document.querySelector("#find-words")?.focus()],
      [["p"], "Track", () => press("[data-test=track-run]")],
      [["z", "Ctrl+z"], "Undo", () => quietly(store.goBack("undo"))],
      [["y", "Ctrl+y", "Ctrl+Shift+z"], "Redo", () => quietly(store.goBack("redo"))],
    ]],
    ["Tools", [
      [["v"], "Click and box", () => store.setTool("point")],
      [["x"], "Box only", tool("box")],
      [["b"], "Brush", tool("brush")],
      [["e"], "Eraser", tool("eraser")],
      [["g"], "Move the picture", tool("hand")],
      [["["], "Smaller brush", () => store.setBrushRadius(store.brushRadius / 1.2)],
      [["]"], "Larger brush", () => store.setBrushRadius(store.brushRadius * 1.2)],
    ]],
    ["The selected object", [
      [["1", "2", "3", "4", "5", "6", "7", "8", "9"], "Select the object of that number", (event) => store.select(Number(event.key))],
      [["Delete", "Backspace"], "Remove", selected((object) => quietly(remove(store, object)))],
      [["h"], "Hide, show", selected(({ id, is_hidden }) => quietly(store.do("hide", { id, is_hidden: !is_hidden })))],
      [["l"], "Lock, unlock", selected(({ id, is_locked }) => quietly(store.do("lock", { id, is_locked: !is_locked })))],
      [["Escape"], "Cancel; back to clicking; select nothing", () => cancel(store, tools)],
    ]],
    ["Without a mouse", [
      [["w", "a", "s", "d", "Alt+ArrowUp", "Alt+ArrowLeft", "Alt+ArrowDown", "Alt+ArrowRight"], "Move the crosshair", (event) => MOVES[event.key.toLowerCase()] && move(...MOVES[event.key.toLowerCase()])(event)],
      [["Enter"], "Click at the crosshair", () => clickCrosshair(tools, false)],
      [["Shift+Enter"], "“Not that” at the crosshair", () => clickCrosshair(tools, true)],
    ]],
  ];
}

const MOVES = { w: [0, -1], a: [-1, 0], s: [0, 1], d: [1, 0], arrowup: [0, -1], arrowleft: [-1, 0], arrowdown: [0, 1], arrowright: [1, 0] };

// What the mouse and fingers do; shown beside the keys.
const POINTERS = [
  ["Click", "Select an object, add to it, or make one"],
  ["Right click, Alt + click", "Not that"],
  ["Drag", "Box around a new object"],
  ["Hold Shift", "Preview of a click"],
  ["Wheel, two fingers", "Zoom"],
  ["Middle button, Space + drag", "Move the picture"],
  ["Hold (touch)", "Not that"],
];

async function remove(store, { id, name }) {
  await store.do("remove", { id });
  toast(`Removed ${name}.`, { action: { label: "Undo", run: () => store.goBack("undo").catch(() => {}) } });
}

function cancel(store, tools) {
  if (tools.cancel()) return;
  if (tools.crosshair) {
    tools.crosshair = null;
    tools.stage.changed();
  } else if (store.tool !== "point") store.setTool("point");
  else store.select(null);
}

const NAMES = {
  ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", Escape: "Esc", Delete: "Del", "-": "−", Backspace: "⌫",
};

export class Keys {
  constructor(stage) {
    this.stage = stage;
    this.table = tableOf(stage);
    this.actions = new Map(this.table.flatMap(([, entries]) => entries.flatMap(([keys, , does]) => keys.map((key) => [key, does]))));
    this.onDown = (event) => this.down(event);
    this.onUp = (event) => this.up(event);
    this.onBlur = () => this.blur();
    this.onHelp = () => this.help();
    addEventListener("keydown", this.onDown);
    addEventListener("keyup", this.onUp);
    addEventListener("blur", this.onBlur);
    document.querySelector(".studio")?.addEventListener("show-help", this.onHelp);
  }

  close() {
    removeEventListener("keydown", this.onDown);
    removeEventListener("keyup", this.onUp);
    removeEventListener("blur", this.onBlur);
    document.querySelector(".studio")?.removeEventListener("show-help", this.onHelp);
    this.dialog?.remove();
  }

  down(event) {
    const { tools, store } = this.stage;
    if (event.key === "Shift") this.setShift(true);
    if (event.defaultPrevented || event.isComposing || this.dialog?.open || document.querySelector("dialog[open]")) return;
    if (takesText(event.target)) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    if (takesKey(event.target, event.key)) return;
    if (event.key === " ") {
      event.preventDefault();
      if (!event.repeat) Object.assign(tools, { isSpaceDown: true, isSpaceUsed: false });
      this.stage.changed();
      return;
    }
    const does = event.key === "?" ? this.onHelp : this.actions.get(nameOf(event));
    if (!does) return;
    event.preventDefault();
    if (event.repeat && !REPEATING.test(event.key)) return;
    does(event);
    if (store.follows && /^(Arrow|Home|End)/.test(event.key)) store.follows = false;
  }

  up(event) {
    const { tools, store } = this.stage;
    if (event.key === "Shift") this.setShift(false);
    if (event.key !== " " || !tools.isSpaceDown) return;
    tools.isSpaceDown = false;
    if (!tools.isSpaceUsed) store.playing ? store.pause() : store.play();
    this.stage.changed();
  }

  /** The window is left: no key is down any more. */
  blur() {
    this.stage.tools.isSpaceDown = false;
    this.setShift(false);
  }

  setShift(isDown) {
    this.stage.tools.isShiftDown = isDown;
    this.stage.tools.hoverHere();
  }

  /** The table of keys; the same key again ends it. */
  help() {
    this.dialog ??= this.makeDialog();
    if (this.dialog.open) this.dialog.close();
    else this.dialog.showModal();
  }

  makeDialog() {
    const dialog = h("dialog", { class: "help", id: "help-dialog", "aria-label": "Keys" });
    const row = (keys, words) => h("tr", {}, h("th", { scope: "row" }, keys), h("td", {}, words));
    const part = (heading, rows) => h("section", {}, h("h2", {}, heading), h("table", {}, h("tbody", {}, rows)));
    const parts = this.table.map(([heading, entries]) => part(heading, entries.map(([keys, words]) => row(shownKeys(keys), words))));
    const pointers = part("With a mouse or fingers", POINTERS.map(([gesture, words]) => row(gesture, words)));
    dialog.append(
      h("header", { class: "row" }, h("h1", {}, "Keys"), h("span", { class: "spacer" }), iconButton("close", "Close", () => dialog.close(), { key: "Esc" })),
      h("div", { class: "columns" }, [pointers, ...parts]),
    );
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
    dialog.addEventListener("keydown", (event) => event.key === "?" && dialog.close());
    document.querySelector(".studio").append(dialog);
    return dialog;
  }
}

const REPEATING = /^(Arrow|[,.wasd[\]+=-]$)/i;

/** A key with what is held beside it, as the table names it. */
function nameOf(event) {
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const isNamed = key.length > 1 || /[a-z]/.test(key); // with "+" or "?", shift is part of the key
  const control = event.ctrlKey || event.metaKey ? "Ctrl+" : "";
  const alt = event.altKey ? "Alt+" : "";
  return `${control}${alt}${event.shiftKey && isNamed ? "Shift+" : ""}${key}`;
}

function shownKeys(keys) {
  if (keys.length > 8 && keys[0] === "1") return [h("kbd", {}, "1"), " … ", h("kbd", {}, "9")];
  const shown = keys[0] === "w" ? ["w", "a", "s", "d", "Alt+arrows"] : keys[0] === "+" ? ["+"] : keys.slice(0, 2);
  return shown.flatMap((key, index) => {
    const parts = key === "+" ? ["+"] : key.split("+");
    const caps = parts.map((part) => h("kbd", {}, NAMES[part] ?? (part.length === 1 ? part.toUpperCase() : part)));
    return [index ? " " : "", ...caps];
  });
}

/** Whether an element is typed into. */
const takesText = (element) => element.matches?.("textarea, select, [contenteditable=''], [contenteditable=true], input:not([type=checkbox], [type=radio], [type=range], [type=button], [type=color])");

/** Whether an element has a use of its own for a key. */
function takesKey(element, key) {
  if (element.matches?.("input[type=range], [role=slider], [role=radiogroup] *, input[type=radio]") && /^(Arrow|Home|End|Page)/.test(key)) return true;
  return (key === " " || key === "Enter") && Boolean(element.matches?.("button, a[href], summary, input, [role=button], [role=tab], [role=option], label"));
}
