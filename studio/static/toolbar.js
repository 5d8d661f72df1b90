// Beside the stage: the tools on its left, and below it a line that says what a click would do.

import { h, icon, iconButton } from "./dom.js";

const TOOLS = [
  ["point", "Click and box", "V"],
  ["box", "Box only", "X"],
  ["brush", "Brush", "B"],
  ["eraser", "Eraser", "E"],
  ["hand", "Move the picture", "G"],
];

export function mountToolbar(element, store, stage) {
  const { tools } = stage;
  const buttons = TOOLS.map(([name, label, key]) => iconButton(name, label, () => store.setTool(name), { key, id: `tool-${name}` }));
  const radius = h("input", {
    type: "range", min: 0, max: 100, class: "radius", id: "brush-radius", "aria-label": "Size of the brush", title: "Size of the brush ([ and ])",
    oninput: () => store.setBrushRadius(radiusOf(Number(radius.value), store)),
  });
  const strip = h(
    "div",
    { class: "stage-tools", role: "toolbar", "aria-label": "Tools", "aria-orientation": "vertical" },
    buttons,
    radius,
    h("span", { class: "spacer" }),
    iconButton("plus", "Zoom in", () => tools.zoom(1.4), { key: "+", id: "zoom-in" }),
    iconButton("minus", "Zoom out", () => tools.zoom(1 / 1.4), { key: "−", id: "zoom-out" }),
    iconButton("fit", "Show all of the frame", () => tools.fit(), { key: "0", id: "zoom-fit" }),
  );
  element.prepend(strip);

  const hint = h("span", { class: "stage-hint", id: "stage-hint" });
  const anew = h("button", { type: "button", class: "small", id: "new-object", title: "Stop adding to the selected object (Esc)", onclick: () => store.select(null) }, icon("plus"), "New object");
  const spinner = h("span", { class: "spinner", role: "img", "aria-label": "Working", id: "working" });
  const zoom = h("span", { class: "muted", id: "zoom" });
  element.append(h("div", { class: "stage-status" }, hint, anew, h("span", { class: "spacer" }), spinner, zoom));

  const update = () => {
    buttons.forEach((button, index) => button.setAttribute("aria-pressed", String(TOOLS[index][0] === store.tool)));
    radius.hidden = !tools.isBrush;
    radius.value = sliderOf(store.brushRadius, store);
    const [text, color] = hintOf(store, stage);
    if (hint.dataset.text !== text + color) {
      hint.dataset.text = text + color;
      hint.replaceChildren(...[color && h("span", { class: "swatch", style: { background: color } }), text].filter(Boolean));
    }
    anew.hidden = store.selected === null || store.tool === "hand" || store.tool === "eraser";
    spinner.hidden = store.busy === 0 && stage.isShown;
    const percent = `${Math.round(stage.viewport.scale * 100)} %`;
    if (zoom.textContent !== percent) zoom.textContent = percent;
    stage.canvas.style.cursor = cursorOf(store, stage);
  };
  stage.onChange.add(update);
  update();
}

/** What a click would do here → [sentence, colour of the object it is about, or ""]. */
function hintOf(store, { tools }) {
  const isTouch = matchMedia("(pointer: coarse)").matches;
  const click = tools.crosshair ? "Enter" : isTouch ? "Tap" : "Click";
  const not = tools.crosshair ? "Shift + Enter" : isTouch ? "hold" : "right click";
  const selected = store.object(store.selected);
  if (store.tool === "hand") return ["Drag to move the picture", ""];
  if (store.tool === "brush") return selected ? [`Paint on ${selected.name}`, selected.color] : ["Paint a new object, or on one that is there", ""];
  if (store.tool === "eraser") return selected ? [`Erase from ${selected.name}`, selected.color] : ["Erase from an object", ""];
  const { intent } = tools;
  if (intent?.kind === "pick") return [`${click}: ${intent.item.accepted ? "leave out" : "take"} ${intent.item.label}`, intent.item.color ?? ""];
  if (intent?.kind === "select") return [`${click}: select ${store.object(intent.id).name}`, store.object(intent.id).color];
  if (intent?.kind === "refine") return [`${click}: add to ${selected.name} · ${not}: not that`, selected.color];
  if (intent?.kind === "add") return [isTouch ? "Tap: new object" : `${click}: new object · drag: box around it · hold Shift: preview`, ""];
  if (selected) return [`${selected.name} is selected`, selected.color];
  return [`${isTouch ? "Tap" : "Click"} on a thing to take it, or drag a box around it`, ""];
}

function cursorOf(store, { tools, isShown }) {
  if (tools.press?.kind === "pan") return "grabbing";
  if (tools.isSpaceDown || store.tool === "hand") return "grab";
  if (tools.isBrush) return "none";
  if (!isShown) return "progress";
  const { kind } = tools.intent ?? {};
  return kind === "select" || kind === "pick" ? "pointer" : kind ? "crosshair" : "default";
}

// The slider is finer for small brushes: its place goes with the square root of the radius.
const largest = (store) => Math.max(store.state.width, store.state.height) / 4;
const radiusOf = (place, store) => 0.5 + (largest(store) - 0.5) * (place / 100) ** 2;
const sliderOf = (radius, store) => Math.round(100 * Math.sqrt((radius - 0.5) / (largest(store) - 0.5)));
