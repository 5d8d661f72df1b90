// What the panels build their insides with: folding frames, redrawing that keeps the focus, numbers as words.

import { h } from "./dom.js";
import { keep, kept } from "./memory.js";
import { toast } from "./toast.js";

// A control that is taken away between the press and the release of a pointer gets no click, and a slider that is
// dragged stops: what is to be drawn into the part that is being pressed waits until it is let go.
let pressed = null;
const waiting = new Map();
document.addEventListener("pointerdown", (event) => (pressed = event.target), true);
for (const name of ["pointerup", "pointercancel", "dragend"]) {
  document.addEventListener(
    name,
    () => {
      pressed = null;
      drawWaiting();
    },
    true,
  );
}

function drawWaiting() {
  setTimeout(() => {
    for (const [element, children] of [...waiting]) refill(element, children);
  });
}

// Nor does a colour arrive that is being picked when its control is taken away: the browser's own window for it closes.
const letGo = () => {
  if (!pressed?.matches("input[type=color]")) return;
  pressed = null;
  drawWaiting();
};
document.addEventListener("click", (event) => event.target.matches?.("input[type=color]") && (pressed = event.target), true);
for (const name of ["change", "keydown", "focusout"]) document.addEventListener(name, letGo, true);

/** Put new children into an element. The control that had the focus has it again, with what was typed into it, where
 *  the new one has the same `data-key`. */
export function refill(element, ...children) {
  waiting.delete(element);
  if (pressed && element !== pressed && element.contains(pressed)) {
    waiting.set(element, children);
    return;
  }
  const active = element.contains(document.activeElement) ? document.activeElement : null;
  const key = active?.dataset.key;
  const typed = active?.matches("input[type=text]") ? [active.value, active.selectionStart, active.selectionEnd] : null;
  element.replaceChildren(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  const again = key && element.querySelector(`[data-key="${CSS.escape(key)}"]`);
  if (!again) return;
  if (typed && again !== active && again.matches("input[type=text]")) {
    again.value = typed[0];
    again.setSelectionRange(typed[1], typed[2]);
  }
  again.focus({ preventScroll: true });
}

/** A function that calls `draw(values)` where `read()` gives something else than the last time. */
export function drawnWhenChanged(read, draw) {
  let last = null;
  return () => {
    const values = read();
    const now = JSON.stringify(values);
    if (now === last) return;
    last = now;
    draw(values);
  };
}

/** A panel's frame: a heading that folds it. Gives its body, and a place in the heading for a number or a word. */
export function panel(element, title, name, isFoldedAtFirst = false) {
  const note = h("span", { class: "panel-note" });
  const body = h("div", { class: "panel-body", id: `panel-body-${name}` });
  const heading = h(
    "button",
    {
      type: "button",
      class: "panel-heading",
      "aria-controls": body.id,
      "data-test": `fold-${name}`,
      onclick: () => fold(!body.hidden, true),
    },
    h("span", { class: "panel-title" }, title),
    note,
  );
  function fold(isFolded, isByHand = false) {
    body.hidden = isFolded;
    heading.setAttribute("aria-expanded", String(!isFolded));
    if (isByHand) keep(`fold:${name}`, isFolded);
  }
  element.classList.add("panel");
  element.replaceChildren(h("h2", {}, heading), body);
  fold(kept(`fold:${name}`) ?? isFoldedAtFirst);
  return { body, note, unfold: () => fold(false) };
}

/** Radio buttons that look like one row of buttons; `choices` is {value: text}. */
export function segments(label, name, choices, chosen, onchange, disabled = []) {
  const option = ([value, text]) =>
    h(
      "label",
      { class: "segment" },
      h("input", {
        type: "radio",
        name,
        value,
        checked: value === chosen,
        disabled: disabled.includes(value),
        "data-key": `${name}-${value}`,
        "data-test": `${name}-${value}`,
        onchange: () => onchange(value),
      }),
      h("span", {}, text),
    );
  return h(
    "div",
    { class: `segments${Object.keys(choices).length > 3 ? " in-two" : ""}`, role: "radiogroup", "aria-label": label },
    Object.entries(choices).map(option),
  );
}

/** A slider from 0 to 1 with its value beside it. `oncommit` is called when it is let go. */
export function slider(label, value, oncommit, attributes = {}) {
  const shown = h("output", {}, value.toFixed(2));
  const input = h("input", {
    type: "range",
    min: 0.05,
    max: 0.95,
    step: 0.05,
    value,
    "aria-label": label,
    ...attributes,
    oninput: () => (shown.textContent = Number(input.value).toFixed(2)),
    onchange: () => oncommit(Number(input.value)),
  });
  return h("div", { class: "slider" }, h("span", {}, label), input, shown);
}

/** What is folded away until it is asked for. */
export function disclosure(summary, name, ...children) {
  return h(
    "details",
    { class: "disclosure", "data-test": name },
    h("summary", { "data-key": name }, summary),
    h("div", { class: "disclosure-body" }, ...children),
  );
}

/** A bar from 0 to 1 that says how far something is; null moves without saying. */
export function progressBar(label, fraction) {
  return h("progress", { max: 1, value: fraction, "aria-label": label });
}

/** "1 object", "3 objects". */
export function counted(number, noun, plural = `${noun}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? noun : plural}`;
}

/** Bytes for people: "3.4 MB". */
export function sizeText(bytes) {
  const units = ["bytes", "kB", "MB", "GB"];
  let unit = 0;
  for (; bytes >= 1000 && unit < 3; unit += 1) bytes /= 1000;
  return `${unit === 0 || bytes >= 100 ? Math.round(bytes) : bytes.toFixed(1)} ${units[unit]}`;
}

/** Seconds for people: "45 s", "3 min". */
export function durationText(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

const pictures = new Map();

/** A picture that is fetched once; the ones asked for longest ago are let go. */
function picture(url) {
  let loading = pictures.get(url);
  pictures.delete(url);
  loading ??= new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = reject;
    image.src = url;
  });
  pictures.set(url, loading);
  if (pictures.size > 64) pictures.delete(pictures.keys().next().value);
  return loading;
}

/**
 * A small canvas with a part of a frame.
 * @param box part to show, [x0, y0, x1, y1] in pixels of the video, with some room around it; null: all of the frame.
 * @param videoSize [width, height] of the video.
 * @param size [width, height] of the canvas in CSS pixels.
 */
export function thumbnail(url, box, videoSize, size, color = null) {
  const scale = Math.min(devicePixelRatio || 1, 2);
  const canvas = h("canvas", {
    class: "thumbnail",
    width: size[0] * scale,
    height: size[1] * scale,
    style: { width: `${size[0]}px`, height: `${size[1]}px` },
    "aria-hidden": "true",
  });
  picture(url).then(
    (image) => {
      const [left, top, width, height] = box ? roomAround(box, videoSize, size) : [0, 0, ...videoSize];
      const zoom = image.width / videoSize[0];
      const context = canvas.getContext("2d");
      context.drawImage(image, left * zoom, top * zoom, width * zoom, height * zoom, 0, 0, canvas.width, canvas.height);
      if (!box || !color) return;
      context.strokeStyle = color;
      context.lineWidth = 1.5 * scale;
      const [sx, sy] = [canvas.width / width, canvas.height / height];
      context.strokeRect((box[0] - left) * sx, (box[1] - top) * sy, (box[2] - box[0]) * sx, (box[3] - box[1]) * sy);
    },
    () => {},
  );
  return canvas;
}

/** The part of a frame with a box in its middle and the shape of `size`, within the frame where it can be. */
function roomAround(box, videoSize, size) {
  const shape = size[0] / size[1];
  let width = Math.max((box[2] - box[0]) * 1.3, (box[3] - box[1]) * 1.3 * shape, 24);
  width = Math.min(width, videoSize[0], videoSize[1] * shape);
  const height = width / shape;
  const left = Math.max(0, Math.min((box[0] + box[2] - width) / 2, videoSize[0] - width));
  const top = Math.max(0, Math.min((box[1] + box[3] - height) / 2, videoSize[1] - height));
  return [left, top, width, height];
}

/** Say what was done, with a button that takes it back, as long as nothing was done after it. */
export function saidWithUndo(store, text) {
  const { version } = store.state;
  const run = () => {
    if (store.state.version === version) store.goBack("undo").catch(() => {});
    else toast("More was done since then. The Undo button at the top takes back one step after another.");
  };
  toast(text, { action: { label: "Undo", run }, seconds: 8 });
}
